#include "broker/hosts.h"

#include "base/cleanup.h"
#include "broker/interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Interfaces are listed newest first: a later match is an older one. */
static bool has_older_namesake(const struct interface *interface)
{
	for (const struct interface *older = interface->next; older; older = older->next)
		if (strcasecmp(older->record.hostname, interface->record.hostname) == 0)
			return true;
	return false;
}

static const char *find_hostname(const struct network *network, struct mac mac)
{
	for (const struct interface *interface = network->interfaces; interface;
		interface = interface->next)
		if (memcmp(&interface->record.mac, &mac, sizeof(mac)) == 0)
			return *interface->record.hostname && !has_older_namesake(interface)
				       ? interface->record.hostname
				       : NULL;
	return NULL;
}

static void write_line(FILE *stream, const struct network *network, const struct reservation *entry)
{
	struct in_addr address = ipv4_subnet_host(network->link.subnet, entry->offset);
	const char *hostname = find_hostname(network, entry->mac);
	char address_text[INET_ADDRSTRLEN];
	char domain[NETWORK_DOMAIN_SIZE];
	char mac_text[MAC_TEXT_SIZE];

	mac_to_text(entry->mac, mac_text);
	inet_ntop(AF_INET, &address, address_text, sizeof(address_text));
	network_get_domain(network, domain);
	fprintf(stream, "%s,%s", mac_text, address_text);
	/* With its domain: a bare "ignore", "infinite" or "1h" is not a name to dnsmasq. */
	if (hostname)
		fprintf(stream, ",%s.%s", hostname, domain);
	fputc('\n', stream);
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

char *hosts_make_text(const struct network *network)
{
	const struct reservations *reservations = &network->memory.reservations;
	cleanup_free struct reservation *sorted = sort_reservations(reservations);
	char *text = NULL;
	size_t size;
	FILE *stream = sorted ? open_memstream(&text, &size) : NULL;

	if (!stream)
		return NULL;
	for (size_t i = 0; i < reservations->count; i++)
		write_line(stream, network, &sorted[i]);
	if (fclose(stream) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

int network_write_hosts(struct network *network)
{
	cleanup_free char *text = hosts_make_text(network);
	int error;

	if (!text)
		return -ENOMEM;
	if (network->hosts && strcmp(network->hosts, text) == 0)
		return 0;
	error = records_save_hosts(network->registry->records, network->name, text);
	if (error)
		return error;
	free(network->hosts);
	network->hosts = take_ptr(text);
	dhcp_reload(&network->dhcp);
	return 0;
}
