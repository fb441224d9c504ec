#include "broker/hosts.h"

#include "base/cleanup.h"
#include "broker/configured-reservations.h"
#include "broker/vm-names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A live interface with a hostname. */
struct named {
	const struct interface *interface;
	size_t position; /* in the network's list: newest first */
};

/* Those whose hostname it is, by MAC. */
struct names {
	struct named *list;
	size_t count;
};

/* The oldest of a name first. */
static int compare_hostnames(const void *left, const void *right)
{
	const struct named *a = left, *b = right;
	int order = strcasecmp(vm_names_get(a->interface), vm_names_get(b->interface));

	return order ? order : (a->position < b->position) - (a->position > b->position);
}

static int compare_macs(const void *left, const void *right)
{
	const struct named *a = left, *b = right;

	return memcmp(&a->interface->record.mac, &b->interface->record.mac, sizeof(struct mac));
}

static int compare_mac_with(const void *key, const void *entry)
{
	const struct named *named = entry;

	return memcmp(key, &named->interface->record.mac, sizeof(struct mac));
}

static void list_named(const struct network *network, struct names *names)
{
	size_t position = 0;

	for (const struct interface *interface = network->interfaces; interface;
		interface = interface->next, position++)
		if (*vm_names_get(interface))
			names->list[names->count++] = (struct named){interface, position};
}

/* Each name's oldest holder stays. */
static void drop_namesakes(struct names *names)
{
	size_t kept = 0;

	qsort(names->list, names->count, sizeof(*names->list), compare_hostnames);
	for (size_t i = 0; i < names->count; i++)
		if (i == 0 || strcasecmp(vm_names_get(names->list[i].interface),
				      vm_names_get(names->list[kept - 1].interface)) != 0)
			names->list[kept++] = names->list[i];
	names->count = kept;
}

/* names->list is to be freed. */
static int collect_names(const struct network *network, struct names *ret_names)
{
	struct names names = {.count = 0};
	size_t interfaces_count = 0;

	for (const struct interface *interface = network->interfaces; interface;
		interface = interface->next)
		interfaces_count++;
	names.list = calloc(interfaces_count + 1, sizeof(*names.list));
	if (!names.list)
		return -ENOMEM;
	list_named(network, &names);
	drop_namesakes(&names);
	qsort(names.list, names.count, sizeof(*names.list), compare_macs);
	*ret_names = names;
	return 0;
}

/* A reserved name is its MAC's alone, whoever had it before it was reserved. */
static const char *find_hostname(
	const struct network *network, const struct names *names, struct mac mac)
{
	const char *reserved = configured_reservation_name(network, mac);
	const struct named *named;

	if (reserved)
		return reserved;
	named = bsearch(&mac, names->list, names->count, sizeof(*names->list), compare_mac_with);
	return named && !configured_reservation_find_name(network, vm_names_get(named->interface))
		       ? vm_names_get(named->interface)
		       : NULL;
}

struct text {
	FILE *stream;
	const struct network *network;
	const char *domain;
	struct names names;
};

typedef void write_line(const struct text *text, struct mac mac, const char *address);

static void write_reservation(const struct text *text, struct mac mac, const char *address)
{
	const char *hostname = find_hostname(text->network, &text->names, mac);
	char mac_text[MAC_TEXT_SIZE];

	mac_to_text(mac, mac_text);
	/* No fprintf(): of hundreds of lines for each interface, most are of this form. */
	fputs(mac_text, text->stream);
	fputc(',', text->stream);
	fputs(address, text->stream);
	/* With its domain: a bare "ignore", "infinite" or "1h" is not a name to dnsmasq. */
	if (hostname)
		fprintf(text->stream, ",%s.%s", hostname, text->domain);
	fputc('\n', text->stream);
}

/* The first name is the one that the address is resolved back to. */
static void write_name(const struct text *text, struct mac mac, const char *address)
{
	const char *hostname = find_hostname(text->network, &text->names, mac);

	if (hostname)
		fprintf(text->stream, "%s %s.%s %s\n", address, hostname, text->domain, hostname);
}

static int compare_offsets(const void *left, const void *right)
{
	uint32_t a = ((const struct reservation *)left)->offset;
	uint32_t b = ((const struct reservation *)right)->offset;

	return a < b ? -1 : a > b;
}

/* By address: the order of use changes with every VM and would make every text a new one. */
static struct reservation *sort_reservations(const struct reservations *reservations)
{
	struct reservation *sorted = calloc(reservations->count + 1, sizeof(*sorted));

	if (!sorted || reservations->count == 0)
		return sorted;
	memcpy(sorted, reservations->entries, reservations->count * sizeof(*sorted));
	qsort(sorted, reservations->count, sizeof(*sorted), compare_offsets);
	return sorted;
}

static int write_text(const struct network *network, FILE *stream, write_line *write)
{
	const struct reservations *reservations = &network->memory.reservations;
	cleanup_free struct reservation *sorted = sort_reservations(reservations);
	char domain[NETWORK_DOMAIN_SIZE];
	struct text text = {.stream = stream, .network = network, .domain = domain};

	if (!sorted || collect_names(network, &text.names) < 0)
		return -ENOMEM;
	network_get_domain(network, domain);
	for (size_t i = 0; i < reservations->count; i++) {
		struct in_addr address = ipv4_subnet_host(network->link.subnet, sorted[i].offset);
		char address_text[INET_ADDRSTRLEN];

		ipv4_to_text(address, address_text);
		write(&text, sorted[i].mac, address_text);
	}
	free(text.names.list);
	return 0;
}

static char *make_text(const struct network *network, write_line *write)
{
	cleanup_free char *text = NULL;
	char *buffer = NULL;
	size_t size;
	FILE *stream = open_memstream(&buffer, &size);
	int error;

	if (!stream)
		return NULL;
	error = write_text(network, stream, write);
	text = text_take_stream(stream, &buffer);
	return error ? NULL : take_ptr(text);
}

char *hosts_make_text(const struct network *network)
{
	return make_text(network, write_reservation);
}

char *hosts_make_names(const struct network *network)
{
	return make_text(network, write_name);
}

/* Writes the text, which it takes over, and keeps it as what the file says, unless that says so
 * already. Returns 1 when it was written. */
static int replace(struct network *network, char *new, char **current,
	int (*save)(struct records *records, const char *network, const char *text))
{
	cleanup_free char *text = new;
	int error;

	if (!text)
		return -ENOMEM;
	if (*current && strcmp(*current, text) == 0)
		return 0;
	error = save(network->registry->records, network->name, text);
	if (error)
		return error;
	free(*current);
	*current = take_ptr(text);
	return 1;
}

int network_write_hosts(struct network *network)
{
	int hosts = replace(network, hosts_make_text(network), &network->hosts, records_save_hosts);
	int names =
		replace(network, hosts_make_names(network), &network->names, records_save_names);

	if (hosts > 0 || names > 0)
		dhcp_reload(&network->dhcp);
	if (hosts < 0)
		return hosts;
	return names < 0 ? names : 0;
}
