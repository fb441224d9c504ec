/*
 * A front taken over: verbs of raw bytes, and names and aliases of any text. What the verbs do to
 * the kernel is replaced by functions that insist on what priv promises them: valid names, private
 * subnets, numbers within bounds.
 *
 * Input: one byte that chooses what is driven, one byte of settings (low half: fds sent along;
 * 0x10: the modules fail; 0x20: no dnsmasq runs; 0x40: fds come back), then the bytes themselves.
 */

#include "base/cleanup.h"
#include "base/linger.h"
#include "priv/dispatch.h"
#include "priv/foreign.h"
#include "priv/forwards.h"
#include "priv/guard.h"
#include "priv/nat.h"
#include "priv/pool.h"
#include "priv/sockets.h"
#include "priv/uplink-queue.h"
#include "priv/vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static uint8_t settings;

static void insist(bool condition)
{
	if (!condition)
		abort();
}

static int module_answer(struct verb_outcome *outcome)
{
	if (settings & 0x40)
		insist(outcome_add_fd(outcome, dup(STDERR_FILENO)) == 0);
	outcome->value = 1;
	return settings & 0x10 ? outcome_fail(outcome, -EIO, "as told") : 0;
}

static void insist_network(const char *network)
{
	insist(network_name_is_valid(network));
}

int links_create_bridge(
	struct links *links, const struct bridge_wish *wish, struct verb_outcome *outcome)
{
	insist_network(wish->network);
	insist(wish->mode < NETWORK_MODE_COUNT);
	insist(wish->subnet.prefix_length >= 8 && wish->subnet.prefix_length <= 30);
	insist(ipv4_subnet_contains(wish->subnet, wish->subnet.address));
	insist(ipv4_subnet_is_private(wish->subnet));
	insist(wish->mtu >= VERB_MTU_MIN && wish->mtu <= VERB_MTU_MAX);
	return module_answer(outcome);
}

int links_check_bridge_unused(
	struct links *links, const char *network, struct verb_outcome *outcome)
{
	insist_network(network);
	return 0;
}

int links_delete_bridge(struct links *links, const char *network, struct verb_outcome *outcome)
{
	insist_network(network);
	return module_answer(outcome);
}

int links_create_tap(struct links *links, const struct tap_wish *wish, struct verb_outcome *outcome)
{
	const struct ipv4_subnet subnet = {{htonl(0xc0a84000)}, 24};

	insist_network(wish->network);
	insist(wish->queues >= 1 && wish->queues <= VERB_QUEUES_MAX);
	insist(memchr(wish->uplink, '\0', IFNAMSIZ));
	insist(!*wish->uplink || mac_is_unicast(wish->mac));
	if (wish->port.locked) {
		insist(mac_is_unicast(wish->port.mac) && !mac_is_reserved(wish->port.mac));
		insist(ipv4_subnet_contains(subnet, wish->port.address));
		insist(wish->port.address.s_addr != htonl(0xc0a84001));
	}
	return module_answer(outcome);
}

int links_keep_ports(struct links *links, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int guard_apply(struct links *links, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int guard_add_bridge(
	struct links *links, const struct bridge_facts *bridge, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int links_get_tap(struct links *links, uint32_t number, struct tap_facts *ret_facts,
	struct verb_outcome *outcome)
{
	*ret_facts = (struct tap_facts){.name = "vmtap", .network = "blue"};
	return 0;
}

int captures_start(struct captures *captures, const struct verb_start_capture *wanted,
	uint32_t bridge, struct verb_outcome *outcome)
{
	insist_network(wanted->network);
	insist(wanted->end < VERB_CAPTURE_END_COUNT);
	insist(wanted->snaplen >= VERB_SNAPLEN_MIN && wanted->snaplen <= VERB_SNAPLEN_MAX);
	return module_answer(outcome);
}

int captures_add(struct captures *captures, const struct verb_capture_interface *wanted,
	const struct tap_facts *tap, struct verb_outcome *outcome)
{
	insist(memchr(wanted->comment, '\0', sizeof(wanted->comment)));
	for (const char *byte = wanted->comment; *byte; byte++)
		insist(*byte >= ' ' && *byte <= '~');
	return module_answer(outcome);
}

int captures_end(struct captures *captures, uint32_t number, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int links_delete_tap(struct links *links, uint32_t number, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int links_get_bridge(struct links *links, const char *network, struct bridge_facts *ret_facts,
	struct verb_outcome *outcome)
{
	insist_network(network);
	*ret_facts =
		(struct bridge_facts){.subnet = {{htonl(0xc0a84000)}, 24}, .gateway_offset = 1};
	return 0;
}

int forwards_apply(struct links *links, int file, const struct verb_apply_forwards *call,
	struct verb_outcome *outcome)
{
	insist(file >= 0 && call->count <= VERB_FORWARDS_MAX);
	return module_answer(outcome);
}

int nat_apply(struct links *links, bool is_rootless, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int foreign_report(struct links *links, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int dnsmasq_start(struct dnsmasq_table *table, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int dnsmasq_stop(struct dnsmasq_table *table, const char *network, struct verb_outcome *outcome)
{
	insist_network(network);
	if (settings & 0x20)
		return outcome_fail(outcome, -ESRCH, "none runs");
	return settings & 0x10 ? outcome_fail(outcome, -EIO, "as told") : 0;
}

int sockets_force_buffers(
	const int *sockets, size_t sockets_count, uint32_t bytes, struct verb_outcome *outcome)
{
	insist(sockets_count >= 1 && sockets_count <= VERB_SOCKETS_MAX);
	for (size_t i = 0; i < sockets_count; i++)
		insist(fcntl(sockets[i], F_GETFD) >= 0);
	return module_answer(outcome);
}

int sockets_open_route(struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int sockets_open_nft_events(struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int uplink_queues_apply(struct links *links, struct verb_outcome *outcome)
{
	return module_answer(outcome);
}

int vhost_open(uint32_t count, struct verb_outcome *outcome)
{
	insist(count >= 1 && count <= VERB_QUEUES_MAX);
	return module_answer(outcome);
}

void linger_limit(void)
{
}

void linger_unlimit(void)
{
}

static void check_reply(const struct verb_reply *reply)
{
	insist(reply->magic == VERB_MAGIC);
	insist(reply->result <= 0 || reply->result == VERB_RUNS_ALREADY);
	insist(memchr(reply->detail, '\0', sizeof(reply->detail)) != NULL);
	insist((reply->result < 0) == (reply->detail[0] != '\0'));
	insist(reply->result >= 0 || reply->value == 0);
	insist(strlen(verb_to_text(reply->verb)) > 0);
}

static size_t fds_wanted(void)
{
	return settings & 0x0f;
}

static void drive_request(const uint8_t *bytes, size_t size)
{
	cleanup_outcome struct verb_outcome outcome;
	struct priv_context context = {0};
	struct verb_reply reply;
	struct fd_list fds;

	outcome_init(&outcome);
	fd_list_init(&fds);
	while (fds.count < fds_wanted())
		fds.fds[fds.count++] = dup(STDERR_FILENO);
	verbs_answer(&context, bytes, size, &fds, &reply, &outcome);
	check_reply(&reply);
	insist(fds.count == 0);
	insist(reply.result >= 0 || outcome.fds.count == 0);
}

/* Sends one message and takes its answer; false when it was empty, which ends a conversation. */
static bool converse(const int ends[2], const uint8_t *bytes, size_t size)
{
	const int fds[] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
	cleanup_fds struct fd_list reply_fds;
	struct priv_context context = {0};
	struct verb_reply served, received;

	fd_list_init(&reply_fds);
	if (fd_send(ends[1], bytes, size, fds, fds_wanted()) < 0)
		return false;
	insist(verbs_serve(&context, ends[0], &served) == 1);
	insist(verbs_serve(&context, ends[0], &served) == -EAGAIN);
	insist(fd_receive(ends[1], &received, sizeof(received), &reply_fds) == sizeof(received));
	insist(memcmp(&served, &received, sizeof(served)) == 0);
	check_reply(&received);
	return true;
}

static void drive_socket(const uint8_t *bytes, size_t size)
{
	const size_t piece = sizeof(struct verb_request);
	struct priv_context context = {0};
	struct verb_pace pace = {0};
	struct verb_reply reply;
	uint64_t now_us = 0;
	int ends[2];

	insist(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	while (size > 0) {
		size_t length = size < 2 * piece && size > piece ? size : piece;

		length = length < size ? length : size;
		now_us += bytes[0];
		insist(verb_pace_take(&pace, now_us) <= 1000000);
		if (!converse(ends, bytes, length))
			break;
		bytes += length;
		size -= length;
	}
	fd_close(ends[1]);
	insist(verbs_serve(&context, ends[0], &reply) <= 0);
	fd_close(ends[0]);
}

static void check_names(const char *network, uint32_t number)
{
	char domain[NETWORK_DOMAIN_SIZE], altname[LINK_ALTNAME_SIZE], link[IFNAMSIZ];
	char table[NAT_TABLE_SIZE];

	network_domain(network, domain);
	insist(domain[0] != '.' && !strstr(domain, ".."));
	bridge_altname(network, altname);
	tap_altname(network, number, altname);
	bridge_interface_name(number, network, link);
	tap_interface_name(number, link);
	insist(strlen(link) == 13);
	insist(mac_is_reserved(bridge_mac(number, network)) && mac_is_reserved(tap_mac(number)));
	nat_table_name(number, table);
}

static void check_pool(uint32_t number)
{
	struct ipv4_subnet subnet = {.prefix_length = (uint8_t)(8 + number % 23)};
	struct address_pool pool;

	subnet.address.s_addr = number & ipv4_subnet_mask(subnet).s_addr;
	address_pool_split(subnet, 0, 0, &pool);
	insist(pool.reserved_first == 2 && pool.reserved_last >= 2);
	insist(pool.dynamic_first == pool.reserved_last + 1);
	insist(pool.dynamic_last == ipv4_subnet_size(subnet) - 2);
	(void)ipv4_subnet_is_private(subnet);
}

static void drive_names(const uint8_t *bytes, size_t size)
{
	char text[2 * LINK_TAG_SIZE] = {0};
	char again[LINK_TAG_SIZE];
	struct link_tag tag;
	enum network_mode mode;
	uint32_t number = 0;

	memcpy(&number, bytes, size < sizeof(number) ? size : sizeof(number));
	memcpy(text, bytes, size < sizeof(text) ? size : sizeof(text) - 1);
	check_pool(number);
	if (network_mode_from_text(text, &mode) == 0)
		insist(strcmp(network_mode_to_text(mode), text) == 0);
	if (network_name_is_valid(text))
		check_names(text, number);
	if (link_tag_from_text(text, &tag) < 0)
		return;
	link_tag_to_text(&tag, again);
	insist(strcmp(text, again) == 0);
	check_names(tag.network, tag.instance);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static void (*const drivers[])(const uint8_t *, size_t) = {
		drive_request,
		drive_socket,
		drive_names,
	};

	if (size < 2)
		return 0;
	settings = bytes[1];
	drivers[bytes[0] % array_length(drivers)](bytes + 2, size - 2);
	return 0;
}
