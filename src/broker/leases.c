#include "broker/leases.h"

#include "base/cleanup.h"
#include "broker/bridged.h"
#include "broker/interface.h"
#include "broker/vm-names.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Of at most 300 bytes each, so that they fit into one message with room for members to come. */
#define PAGE_LENGTH 128

/* The largest network has 65536 leases of some 70 bytes. */
#define FILE_SIZE_MAX (8u << 20)
#define READ_TRIES    3

bool lease_line_parse(const char *text, struct lease_line *ret_line)
{
	char mac[MAC_TEXT_SIZE], address[INET_ADDRSTRLEN], hostname[HOSTNAME_SIZE] = "";
	struct lease_line line = {0};

	if (sscanf(text, "%" SCNd64 " %17s %15s %63s", &line.expires_s, mac, address, hostname) <
			4 ||
		text_to_mac(mac, &line.mac) < 0 || text_to_ipv4(address, &line.address) < 0)
		return false;
	if (hostname_is_valid(hostname))
		memcpy(line.hostname, hostname, sizeof(line.hostname));
	*ret_line = line;
	return true;
}

/* The whole file at one moment; dnsmasq writes it anew in place. */
static char *read_once(int fd, bool *ret_changed)
{
	cleanup_free char *text = NULL;
	struct stat before, after;
	ssize_t size;

	if (fstat(fd, &before) < 0 || before.st_size > FILE_SIZE_MAX)
		return NULL;
	text = malloc((size_t)before.st_size + 1);
	size = text ? pread(fd, text, (size_t)before.st_size, 0) : -1;
	if (size < 0 || fstat(fd, &after) < 0)
		return NULL;
	text[size] = '\0';
	*ret_changed = size != after.st_size || before.st_mtim.tv_sec != after.st_mtim.tv_sec ||
		       before.st_mtim.tv_nsec != after.st_mtim.tv_nsec ||
		       (size > 0 && text[size - 1] != '\n');
	return take_ptr(text);
}

/* NULL when there is none. */
static char *read_file(const struct registry *registry, const char *network)
{
	cleanup_fd int fd = -1;
	cleanup_free char *text = NULL;
	bool changed = true;

	if (records_open_leases(registry->records, network, &fd) < 0)
		return NULL;
	for (int tries = 0; changed && tries < READ_TRIES; tries++) {
		free(text);
		text = read_once(fd, &changed);
		if (!text)
			return NULL;
	}
	return take_ptr(text);
}

struct page {
	uid_t uid;
	struct in_addr after;
	int64_t now_s;
	struct listed_lease *leases; /* owned */
	size_t count;
	bool is_incomplete; /* memory was out */
};

static struct listed_lease describe(const struct page *page, const struct network *network,
	const struct lease_line *line, const struct interface *interface)
{
	const char *hostname = interface ? vm_names_get(interface) : "";
	struct listed_lease lease = {
		.mac = line->mac,
		.address = line->address,
		.expires_in_s = (uint32_t)(line->expires_s - page->now_s),
	};

	text_copy(lease.network, sizeof(lease.network), network->name);
	text_copy(lease.hostname, sizeof(lease.hostname), *hostname ? hostname : line->hostname);
	if (interface) {
		platform_interface_name(interface->number, lease.interface_name);
		lease.uid = interface->record.uid;
	}
	return lease;
}

static void add_line(struct page *page, const struct network *network, const char *text)
{
	const struct interface *interface;
	struct listed_lease *grown;
	struct lease_line line;

	if (!lease_line_parse(text, &line) || line.expires_s <= page->now_s ||
		line.expires_s - page->now_s > UINT32_MAX ||
		ntohl(line.address.s_addr) <= ntohl(page->after.s_addr))
		return;
	interface = interface_find_mac(network, line.mac);
	if (page->uid != 0 && (!interface || interface->record.uid != page->uid))
		return;
	grown = reallocarray(page->leases, page->count + 1, sizeof(*grown));
	if (!grown) {
		page->is_incomplete = true;
		return;
	}
	page->leases = grown;
	grown[page->count++] = describe(page, network, &line, interface);
}

static void add_network(struct page *page, const struct network *network)
{
	cleanup_free char *text = read_file(network->registry, network->name);
	char *rest = text;
	char *line;

	while (text && (line = strsep(&rest, "\n")))
		add_line(page, network, line);
}

static int compare(const void *left, const void *right)
{
	const struct listed_lease *a = left, *b = right;
	uint32_t first = ntohl(a->address.s_addr), second = ntohl(b->address.s_addr);

	return (first > second) - (first < second);
}

static json_t *encode(const struct page *page)
{
	cleanup_json json_t *list = json_array();

	for (size_t i = 0; i < page->count && i < PAGE_LENGTH; i++)
		if (json_array_append_new(list, listed_lease_encode(&page->leases[i])) < 0)
			return NULL;
	return json_pack("{s:O, s:b}", "leases", list, "more", page->count > PAGE_LENGTH);
}

json_t *leases_make_page(const struct registry *registry, uid_t uid, struct in_addr after)
{
	struct page page = {.uid = uid, .after = after, .now_s = time(NULL)};
	json_t *answer = NULL;

	for (const struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT && !network_is_bridged(network))
			add_network(&page, network);
	if (page.count > 0)
		qsort(page.leases, page.count, sizeof(*page.leases), compare);
	if (!page.is_incomplete)
		answer = encode(&page);
	free(page.leases);
	return answer;
}
