#include "broker/network-start.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/adhoc.h"
#include "broker/bridged.h"
#include "broker/configured-reservations.h"
#include "broker/interface.h"
#include "broker/network-adhoc.h"
#include "broker/network-nat.h"
#include "broker/resolvers.h"
#include "priv/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* How often priv may find a subnet taken that looked free here. */
#define SUBNET_TRIES 8
/* The same for prefixes, of which networks of one broker can share one by chance. */
#define PREFIX_TRIES 64

static void release_uses(struct subnet_uses *uses)
{
	subnet_uses_done(uses);
}
#define cleanup_uses __attribute__((__cleanup__(release_uses)))

/* What other networks of ours have, or will want. */
static int list_networks(const struct network *network, struct subnet_uses *uses)
{
	int error = 0;

	for (const struct network *other = network->registry->networks; other && !error;
		other = other->next) {
		if (other == network)
			continue;
		if (other->state != NETWORK_ABSENT)
			error = subnet_uses_add(
				uses, other->link.subnet, "network \"%s\"", other->name);
		else if (other->config && other->config->settings.has_subnet)
			error = subnet_uses_add(uses, other->config->settings.subnet,
				"the configuration of network \"%s\"", other->name);
	}
	return error;
}

/* Our own networks come before the addresses of their bridges: their names say more. */
static int list_uses(const struct network *network, struct subnet_uses *uses)
{
	int error = list_networks(network, uses);

	return error ? error : platform_list_uses(network->registry->platform, uses);
}

/* The subnets other networks had last are left alone as long as there are enough. */
static int add_remembered_uses(const struct network *network, struct subnet_uses *uses)
{
	int error = 0;

	for (const struct network *other = network->registry->networks; other && !error;
		other = other->next)
		if (other != network && other->memory.has_subnet)
			error = subnet_uses_add(
				uses, other->memory.subnet, "network \"%s\"", other->name);
	return error;
}

static int check_configured(
	const struct network *network, const struct subnet_uses *uses, struct failure *failure)
{
	const struct subnet_use *use = subnet_find_use(uses, network->settings.subnet);
	char text[SUBNET_TEXT_SIZE];

	if (!use)
		return 0;
	ipv4_subnet_to_text(network->settings.subnet, text);
	if (network_is_adhoc(network))
		return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"%s belongs to %s; choose other addresses", text, use->owner);
	return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
		"network \"%s\": its configured subnet %s is taken by %s; configure another one or "
		"remove that",
		network->name, text, use->owner);
}

static int choose_new(const struct network *network, struct subnet_uses *uses,
	struct ipv4_subnet *ret_subnet, struct failure *failure)
{
	int error = add_remembered_uses(network, uses);

	if (!error)
		error = subnet_choose(uses, ret_subnet);
	if (error == -EADDRNOTAVAIL)
		return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"network \"%s\": every subnet the broker would choose is taken on this "
			"host; configure a free one",
			network->name);
	return error ? failure_set(failure, BROKER_ERROR_INTERNAL, "%s", strerror(-error)) : 0;
}

static void report_move(
	const struct network *network, struct ipv4_subnet subnet, const struct subnet_use *use)
{
	char kept[SUBNET_TEXT_SIZE], chosen[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(network->memory.subnet, kept);
	ipv4_subnet_to_text(subnet, chosen);
	log_warn(network->tag, "moved to subnet %s: its old one, %s, is taken by %s", chosen, kept,
		use->owner);
}

static int choose_subnet(const struct network *network, struct subnet_uses *uses,
	struct ipv4_subnet *ret_subnet, struct failure *failure)
{
	const struct subnet_use *use = NULL;
	int error;

	if (network->settings.has_subnet) {
		*ret_subnet = network->settings.subnet;
		return check_configured(network, uses, failure);
	}
	if (network->memory.has_subnet) {
		use = subnet_find_use(uses, network->memory.subnet);
		if (!use) {
			*ret_subnet = network->memory.subnet;
			return 0;
		}
	}
	error = choose_new(network, uses, ret_subnet, failure);
	if (!error && use) {
		/* The list has grown, and with it moved. */
		report_move(network, *ret_subnet, subnet_find_use(uses, network->memory.subnet));
	}
	return error;
}

/* Returns whether any was not known. */
static bool add_live_interfaces(struct network *network)
{
	struct network_memory *memory = &network->memory;
	bool changed = false;

	for (const struct interface *interface = network->interfaces; interface;
		interface = interface->next) {
		const struct interface_record *record = &interface->record;
		uint32_t offset =
			ntohl(record->address.s_addr) - ntohl(network->link.subnet.address.s_addr);

		if (ipv4_subnet_contains(network->link.subnet, record->address) &&
			reservations_add(&memory->reservations, record->mac, offset) == 0)
			changed = true;
	}
	return changed;
}

/* Reservations keep their place in the subnet where the new one has it. */
static int remember_subnet(struct network *network, struct ipv4_subnet subnet)
{
	struct address_pool pool;

	address_pool_split(
		subnet, network->settings.gateway_offset, network->settings.last_offset, &pool);
	network->memory.subnet = subnet;
	network->memory.has_subnet = true;
	reservations_limit(&network->memory.reservations, pool.reserved_first, pool.reserved_last);
	/* Wherever theirs are. */
	add_live_interfaces(network);
	configured_reservations_apply(network);
	return network_save_memory(network);
}

static int write_records(struct network *network, uid_t uid)
{
	struct network_record record = {
		.subnet = network->link.subnet,
		.settings = network->settings,
		.uid = uid,
	};
	int error = remember_subnet(network, network->link.subnet);

	if (!error)
		error = records_save_network(network->registry->records, network->name, &record);
	return error;
}

static void remove_records(struct network *network)
{
	int error = records_remove_network(network->registry->records, network->name);

	free(network->hosts);
	free(network->names);
	free(network->resolvers);
	network->hosts = NULL;
	network->names = NULL;
	network->resolvers = NULL;
	if (error)
		log_warn(network->tag, "its record could not be removed: %s", strerror(-error));
}

static void choose_prefix(struct network *network, uint32_t attempt)
{
	network->link.has_ipv6 = network->settings.ipv6;
	if (network->settings.has_ipv6_prefix)
		network->link.ipv6_prefix = network->settings.ipv6_prefix;
	else
		network_ipv6_prefix(network->registry->instance, network->name, attempt,
			network->link.ipv6_prefix.s6_addr);
}

/* A host without IPv6 has networks without it, and is told so once. */
static int create_without_ipv6(struct network *network, char *detail)
{
	struct registry *registry = network->registry;

	if (!registry->lacks_ipv6)
		log_info("main", "networks are made without IPv6: %s", detail);
	registry->lacks_ipv6 = true;
	network->link.has_ipv6 = false;
	return platform_create_network(registry->platform, &network->link, detail);
}

/* The bridge with a prefix that is free, unless another one was asked for. */
static int create_with_ipv6(struct network *network, char *detail)
{
	int error = -EADDRNOTAVAIL;

	for (uint32_t attempt = 0; error == -EADDRNOTAVAIL && attempt < PREFIX_TRIES; attempt++) {
		choose_prefix(network, attempt);
		error = platform_create_network(
			network->registry->platform, &network->link, detail);
		if (network->settings.has_ipv6_prefix)
			break;
	}
	return error == -EAFNOSUPPORT ? create_without_ipv6(network, detail) : error;
}

/* The bridge on a free subnet, records first. */
static int create_bridge(struct network *network, uid_t uid, struct failure *failure)
{
	cleanup_uses struct subnet_uses uses = {0};
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error = list_uses(network, &uses);

	if (error)
		return failure_set(failure, BROKER_ERROR_INTERNAL,
			"the host's addresses and routes could not be read: %s", strerror(-error));
	network->link = (struct platform_network){
		.mode = network->settings.mode,
		.gateway_offset =
			network->settings.gateway_offset ? network->settings.gateway_offset : 1,
		.mtu = network->settings.mtu,
	};
	memcpy(network->link.uplink, network->settings.uplink, IFNAMSIZ);
	snprintf(network->link.name, sizeof(network->link.name), "%s", network->name);
	for (int tries = 0; tries < SUBNET_TRIES; tries++) {
		error = choose_subnet(network, &uses, &network->link.subnet, failure);
		if (error)
			return error;
		error = write_records(network, uid);
		if (error)
			return failure_set(failure, BROKER_ERROR_INTERNAL,
				"the record of network \"%s\" could not be written: %s",
				network->name, strerror(-error));
		error = create_with_ipv6(network, detail);
		if (error != -EADDRINUSE || network->settings.has_subnet)
			break;
		if (subnet_uses_add(&uses, network->link.subnet, "%s", detail) < 0)
			break;
	}
	if (!error)
		return 0;
	remove_records(network);
	return failure_set(failure, BROKER_ERROR_CREATE_FAILURE, "network \"%s\": %s",
		network->name, *detail ? detail : strerror(-error));
}

static int fail_undone(struct network *network, int error, const char *what, const char *detail,
	struct failure *failure)
{
	char ignored[PLATFORM_DETAIL_SIZE];

	platform_destroy_network(network->registry->platform, network->name, ignored);
	network_start_undo(network);
	return failure_set(failure, BROKER_ERROR_CREATE_FAILURE, "network \"%s\": %s: %s",
		network->name, what, *detail ? detail : strerror(-error));
}

static void report_start(const struct network *network)
{
	char subnet[SUBNET_TEXT_SIZE];

	char prefix[INET6_ADDRSTRLEN] = "none";

	ipv4_subnet_to_text(network->link.subnet, subnet);
	if (network->link.has_ipv6)
		inet_ntop(AF_INET6, &network->link.ipv6_prefix, prefix, sizeof(prefix));
	log_info(network->tag, "created bridge %s, mode %s, subnet %s, IPv6 prefix %s, MTU %u",
		network->link.bridge, network_mode_to_text(network->link.mode), subnet, prefix,
		network->link.mtu);
}

static void start_service(struct network *network)
{
	const struct network_settings *settings = &network->settings;
	struct platform_service service = {
		.dhcp = settings->dhcp,
		.dns = settings->dns,
		.router_advertisement = settings->router_advertisement && network->link.has_ipv6,
		.lease_s = settings->lease_s,
		.last_offset = settings->last_offset,
	};

	memcpy(service.domain, settings->domain, sizeof(service.domain));
	dhcp_start(&network->dhcp, &service);
}

/* Interfaces of the host are root's. */
static int check_rootless(const struct network *network, struct failure *failure)
{
	bool is_bridged = network->settings.mode == NETWORK_MODE_BRIDGED;

	if (!network->registry->is_rootless || (!is_bridged && !*network->settings.uplink))
		return 0;
	return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
		"network \"%s\": %s takes the system's broker, which runs as root; this one is an "
		"ordinary user's own: use mode shared%s",
		network->name, is_bridged ? "mode bridged" : "\"uplink\"",
		is_bridged ? "" : " without \"uplink\"");
}

int network_start(struct network *network, uid_t uid, struct failure *failure)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error;

	if (network->config)
		network->settings = network->config->settings;
	else if (!adhoc_read_name(network->name, &network->settings))
		return failure_set(failure, BROKER_ERROR_INTERNAL,
			"network \"%s\" is not configured", network->name);
	error = check_rootless(network, failure);
	if (error)
		return error;
	if (network->settings.mode == NETWORK_MODE_BRIDGED)
		return bridged_start(network, uid, failure);
	network->overlap_told = false;
	error = create_bridge(network, uid, failure);
	if (error)
		return error;
	network->uid = uid;
	network_nat_want(network->registry);
	error = network_write_hosts(network);
	if (!error)
		error = resolvers_write(network);
	if (error)
		return fail_undone(network, error, "its files for dnsmasq could not be written",
			detail, failure);
	report_start(network);
	network_enter(network, NETWORK_STARTING);
	start_service(network);
	if (network->state == NETWORK_ABSENT) {
		*failure = network->last_failure;
		return -ECANCELED;
	}
	return 0;
}

static bool subnets_are_equal(struct ipv4_subnet a, struct ipv4_subnet b)
{
	return a.address.s_addr == b.address.s_addr && a.prefix_length == b.prefix_length;
}

/* The kernel's subnet and the live interfaces' addresses are the truth; what was remembered may be
 * of another life. Returns whether anything is new. */
static bool correct_memory(struct network *network)
{
	struct network_memory *memory = &network->memory;
	bool changed =
		!memory->has_subnet || !subnets_are_equal(memory->subnet, network->link.subnet);

	if (changed)
		reservations_done(&memory->reservations);
	return add_live_interfaces(network) || changed;
}

void network_start_adopted(struct network *network)
{
	int error = 0;

	if (correct_memory(network) || configured_reservations_apply(network))
		error = remember_subnet(network, network->link.subnet);
	if (error)
		log_warn(network->tag, "its subnet could not be recorded: %s", strerror(-error));
	error = network_write_hosts(network);
	if (!error)
		error = resolvers_write(network);
	if (error)
		log_warn(network->tag, "its files for dnsmasq could not be written: %s",
			strerror(-error));
	start_service(network);
}

void network_start_undo(struct network *network)
{
	network_nat_want(network->registry);
	remove_records(network);
}
