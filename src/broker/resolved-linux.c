/*
 * Names of VMs for the host's own programs: systemd-resolved asks a network's gateway for the
 * network's domain, and for nothing else (org.freedesktop.resolve1(5)). It is told by D-Bus, again
 * whenever it starts; with the link it forgets by itself.
 */
#include "broker/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>

#define NAME            "org.freedesktop.resolve1"
#define PATH            "/org/freedesktop/resolve1"
#define MANAGER         "org.freedesktop.resolve1.Manager"
#define CALL_TIMEOUT_US (UINT64_C(30) * 1000000)
/* A bus that was not there, or went, is looked for again. */
#define RETRY_MS 30000
/* Zones that addresses are looked up in, of one subnet: of more the reverse way is left out. */
#define ZONES_MAX 16

struct announcement {
	struct platform_network network;
	int index;
	char domain[NETWORK_DOMAIN_SIZE];
};

struct resolved {
	struct platform *platform;
	sd_bus *bus; /* NULL: none */
	struct platform_timer *retry;
	struct announcement *announcements;
	size_t count;
	bool refused; /* was told of once */
};

/* A call on its way. */
struct link_call {
	struct resolved *resolved;
	char network[NETWORK_NAME_SIZE];
};

static struct announcement *find(const struct resolved *resolved, const char *network)
{
	for (size_t i = 0; i < resolved->count; i++)
		if (strcmp(resolved->announcements[i].network.name, network) == 0)
			return &resolved->announcements[i];
	return NULL;
}

static int append_server(sd_bus_message *message, int family, const void *address, size_t size)
{
	int error = sd_bus_message_open_container(message, 'r', "iay");

	if (error >= 0)
		error = sd_bus_message_append(message, "i", family);
	if (error >= 0)
		error = sd_bus_message_append_array(message, 'y', address, size);
	return error < 0 ? error : sd_bus_message_close_container(message);
}

static int append_servers(sd_bus_message *message, const struct announcement *announcement)
{
	const struct platform_network *network = &announcement->network;
	struct in_addr gateway = ipv4_subnet_host(network->subnet, network->gateway_offset);
	struct in6_addr gateway6 = ipv6_prefix_gateway(network->ipv6_prefix.s6_addr);
	int error = sd_bus_message_open_container(message, 'a', "(iay)");

	if (error >= 0)
		error = append_server(message, AF_INET, &gateway, sizeof(gateway));
	if (error >= 0 && network->has_ipv6)
		error = append_server(message, AF_INET6, &gateway6, sizeof(gateway6));
	return error < 0 ? error : sd_bus_message_close_container(message);
}

/* RFC 1035 3.5. A subnet that ends within an octet has several zones, or a part of one, which
 * belongs to others as well. */
static int append_ipv4_zones(sd_bus_message *message, struct ipv4_subnet subnet)
{
	uint32_t octets = (subnet.prefix_length + 7u) / 8;
	uint32_t zones = 1u << (octets * 8 - subnet.prefix_length);
	int error = 0;

	if (octets > 3 || zones > ZONES_MAX)
		return 0;
	for (uint32_t i = 0; i < zones && error >= 0; i++) {
		uint32_t base = ntohl(subnet.address.s_addr) + (i << (32 - octets * 8));
		char zone[64] = "";
		size_t length = 0;

		for (uint32_t octet = octets; octet > 0; octet--)
			length += (size_t)snprintf(zone + length, sizeof(zone) - length, "%u.",
				base >> (32 - octet * 8) & 0xff);
		snprintf(zone + length, sizeof(zone) - length, "in-addr.arpa");
		error = sd_bus_message_append(message, "(sb)", zone, true);
	}
	return error;
}

/* RFC 3596 2.5. */
static int append_ipv6_zone(sd_bus_message *message, const struct in6_addr *prefix)
{
	char zone[IPV6_PREFIX_SIZE * 4 + sizeof("ip6.arpa")];
	size_t length = 0;

	for (size_t i = IPV6_PREFIX_SIZE; i > 0; i--)
		length += (size_t)snprintf(zone + length, sizeof(zone) - length, "%x.%x.",
			prefix->s6_addr[i - 1] & 0xfu, prefix->s6_addr[i - 1] >> 4);
	snprintf(zone + length, sizeof(zone) - length, "ip6.arpa");
	return sd_bus_message_append(message, "(sb)", zone, true);
}

/* All of them for routing queries only: none is a search domain of the host. */
static int append_domains(sd_bus_message *message, const struct announcement *announcement)
{
	const struct platform_network *network = &announcement->network;
	int error = sd_bus_message_open_container(message, 'a', "(sb)");

	if (error >= 0)
		error = sd_bus_message_append(message, "(sb)", announcement->domain, true);
	if (error >= 0)
		error = append_ipv4_zones(message, network->subnet);
	if (error >= 0 && network->has_ipv6)
		error = append_ipv6_zone(message, &network->ipv6_prefix);
	return error < 0 ? error : sd_bus_message_close_container(message);
}

static int append_no(sd_bus_message *message, const struct announcement *announcement)
{
	return sd_bus_message_append(message, "s", "no");
}

static int append_false(sd_bus_message *message, const struct announcement *announcement)
{
	return sd_bus_message_append(message, "b", false);
}

/*
 * The last two because dnsmasq speaks no TLS and a local domain is not signed, whatever the host
 * demands of the world. The domains come before the servers: a link with a server and without
 * domains would be asked for everything.
 */
static const struct {
	const char *method;
	int (*append)(sd_bus_message *message, const struct announcement *announcement);
} calls[] = {
	{"SetLinkDefaultRoute", append_false},
	{"SetLinkDomains", append_domains},
	{"SetLinkDNS", append_servers},
	{"SetLinkDNSSEC", append_no},
	{"SetLinkDNSOverTLS", append_no},
};

/* That nobody is there, that the link has gone meanwhile, or that an older one has not that switch,
 * is no refusal. */
static bool is_refusal(const sd_bus_error *error)
{
	static const char *const harmless[] = {
		SD_BUS_ERROR_SERVICE_UNKNOWN,
		SD_BUS_ERROR_NAME_HAS_NO_OWNER,
		SD_BUS_ERROR_NO_REPLY,
		SD_BUS_ERROR_DISCONNECTED,
		SD_BUS_ERROR_UNKNOWN_METHOD,
		"org.freedesktop.resolve1.NoSuchLink",
	};

	for (size_t i = 0; error && i < array_length(harmless); i++)
		if (sd_bus_error_has_name(error, harmless[i]))
			return false;
	return error != NULL;
}

static int handle_answer(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
	const struct link_call *call = userdata;
	const sd_bus_error *error = sd_bus_message_get_error(reply);
	struct resolved *resolved = call->resolved;

	if (!is_refusal(error) || resolved->refused)
		return 0;
	resolved->refused = true;
	resolved->platform->events->names_refused(resolved->platform->context, call->network,
		error->message ? error->message : error->name);
	return 0;
}

static int make_message(struct resolved *resolved, const struct announcement *announcement,
	size_t number, sd_bus_message **ret_message)
{
	int error = sd_bus_message_new_method_call(
		resolved->bus, ret_message, NAME, PATH, MANAGER, calls[number].method);

	if (error >= 0)
		error = sd_bus_message_append(*ret_message, "i", announcement->index);
	if (error >= 0)
		error = calls[number].append(*ret_message, announcement);
	/* Where it does not run nobody wants it to. */
	if (error >= 0)
		error = sd_bus_message_set_auto_start(*ret_message, false);
	return error < 0 ? error : 0;
}

static int ask(struct resolved *resolved, const struct announcement *announcement, size_t number)
{
	__attribute__((__cleanup__(sd_bus_message_unrefp))) sd_bus_message *message = NULL;
	struct link_call *call = calloc(1, sizeof(*call));
	sd_bus_slot *slot = NULL;
	int error = call ? make_message(resolved, announcement, number, &message) : -ENOMEM;

	if (!error)
		error = sd_bus_call_async(
			resolved->bus, &slot, message, handle_answer, call, CALL_TIMEOUT_US);
	if (error < 0) {
		free(call);
		return error;
	}
	call->resolved = resolved;
	memcpy(call->network, announcement->network.name, sizeof(call->network));
	sd_bus_slot_set_destroy_callback(slot, free);
	sd_bus_slot_set_floating(slot, true);
	sd_bus_slot_unref(slot);
	return 0;
}

/* A failure is one of the bus, which is looked for again then. */
static void announce(struct resolved *resolved, const struct announcement *announcement)
{
	int error = 0;

	for (size_t i = 0; i < array_length(calls) && !error; i++)
		error = ask(resolved, announcement, i);
	if (error)
		platform_timer_start(resolved->retry, RETRY_MS);
}

static int handle_owner(sd_bus_message *message, void *userdata, sd_bus_error *unused)
{
	const char *name, *before, *now;
	struct resolved *resolved = userdata;

	if (sd_bus_message_read(message, "sss", &name, &before, &now) < 0 || !*now)
		return 0;
	resolved->refused = false;
	for (size_t i = 0; i < resolved->count; i++)
		announce(resolved, &resolved->announcements[i]);
	return 0;
}

static int handle_lost(sd_bus_message *message, void *userdata, sd_bus_error *unused)
{
	struct resolved *resolved = userdata;

	platform_timer_start(resolved->retry, RETRY_MS);
	return 0;
}

static int watch_bus(struct resolved *resolved)
{
	sd_bus *bus = resolved->bus;
	int error = sd_bus_add_match_async(bus, NULL,
		"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',"
		"arg0='" NAME "'",
		handle_owner, NULL, resolved);

	if (error >= 0)
		error = sd_bus_match_signal_async(bus, NULL, "org.freedesktop.DBus.Local",
			"/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local", "Disconnected",
			handle_lost, NULL, resolved);
	if (error >= 0)
		error = sd_bus_attach_event(bus, resolved->platform->event, 0);
	return error < 0 ? error : 0;
}

static void close_bus(struct resolved *resolved)
{
	if (!resolved->bus)
		return;
	sd_bus_detach_event(resolved->bus);
	sd_bus_close(resolved->bus);
	resolved->bus = sd_bus_unref(resolved->bus);
}

/* A host without a bus has no systemd-resolved that could be told. */
static void connect_bus(struct resolved *resolved)
{
	int error = sd_bus_open_system(&resolved->bus);

	if (error >= 0)
		error = watch_bus(resolved);
	if (error < 0) {
		close_bus(resolved);
		platform_timer_start(resolved->retry, RETRY_MS);
		return;
	}
	for (size_t i = 0; i < resolved->count; i++)
		announce(resolved, &resolved->announcements[i]);
}

static void handle_retry(void *context)
{
	struct resolved *resolved = context;

	close_bus(resolved);
	if (resolved->count > 0)
		connect_bus(resolved);
}

static int add(struct resolved *resolved, const struct announcement *announcement)
{
	struct announcement *found = find(resolved, announcement->network.name);

	if (!found) {
		found = reallocarray(resolved->announcements, resolved->count + 1, sizeof(*found));
		if (!found)
			return -ENOMEM;
		resolved->announcements = found;
		found += resolved->count++;
	}
	*found = *announcement;
	return 0;
}

int platform_announce_names(
	struct platform *platform, const struct platform_network *network, const char *domain)
{
	struct resolved *resolved = platform->resolved;
	struct announcement announcement = {
		.network = *network,
		.index = (int)if_nametoindex(network->bridge),
	};
	int error;

	/* From the host there is no way to the gateway. */
	if (platform->is_rootless)
		return 0;
	error = text_copy(announcement.domain, sizeof(announcement.domain), domain);

	if (!error && announcement.index == 0)
		error = -ENODEV;
	if (!error)
		error = add(resolved, &announcement);
	if (error)
		return error;
	if (resolved->bus)
		announce(resolved, &announcement);
	else
		connect_bus(resolved);
	return 0;
}

void resolved_remove(struct resolved *resolved, const char *network)
{
	struct announcement *announcement = find(resolved, network);

	if (announcement)
		*announcement = resolved->announcements[--resolved->count];
}

void resolved_free(struct resolved *resolved)
{
	if (!resolved)
		return;
	close_bus(resolved);
	platform_timer_free(resolved->retry);
	free(resolved->announcements);
	free(resolved);
}
DEFINE_CLEANUP(struct resolved, resolved_free)

int resolved_new(struct platform *platform, struct resolved **ret_resolved)
{
	cleanup_with(resolved_free) struct resolved *resolved = calloc(1, sizeof(*resolved));
	int error;

	if (!resolved)
		return -ENOMEM;
	resolved->platform = platform;
	error = platform_timer_new(platform, handle_retry, resolved, &resolved->retry);
	if (error)
		return error;
	*ret_resolved = take_ptr(resolved);
	return 0;
}
