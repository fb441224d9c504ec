/*
 * What priv believes of its front: nothing. verbs.c is driven with requests of every kind; the
 * modules that would touch the kernel are replaced by ones that only count, so that a request which
 * should have been refused shows.
 */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/linger.h"
#include "priv/dispatch.h"
#include "priv/foreign.h"
#include "priv/forwards.h"
#include "priv/guard.h"
#include "priv/nat.h"
#include "priv/sockets.h"
#include "priv/uplink-queue.h"
#include "priv/vhost.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the fake modules were asked for, and what they are to answer. */
static struct {
	unsigned int calls;
	int result;
	int stop_result;
	size_t fds; /* to be put into the outcome */
	struct bridge_wish wish;
	struct link_port port;
	int guard_result;
	char network[NETWORK_NAME_SIZE];
	uint32_t number, queues, bytes;
	size_t sockets_count;
	char order[64];
} fake;

static int fake_answer(const char *name, const char *network, struct verb_outcome *outcome)
{
	fake.calls++;
	if (strlen(fake.order) + strlen(name) < sizeof(fake.order))
		strcat(fake.order, name);
	if (network)
		assert_int_equal(text_copy(fake.network, sizeof(fake.network), network), 0);
	for (size_t i = 0; i < fake.fds; i++)
		assert_int_equal(outcome_add_fd(outcome, open("/dev/null", O_RDWR | O_CLOEXEC)), 0);
	outcome->value = 77;
	return fake.result ? outcome_fail(outcome, fake.result, "fake\nrefusal") : 0;
}

int links_create_bridge(
	struct links *links, const struct bridge_wish *wish, struct verb_outcome *outcome)
{
	fake.wish = *wish;
	return fake_answer("b", wish->network, outcome);
}

int links_check_bridge_unused(
	struct links *links, const char *network, struct verb_outcome *outcome)
{
	return fake_answer("u", network, outcome);
}

int links_delete_bridge(struct links *links, const char *network, struct verb_outcome *outcome)
{
	return fake_answer("d", network, outcome);
}

int links_create_tap(struct links *links, const struct tap_wish *wish, struct verb_outcome *outcome)
{
	fake.number = wish->number;
	fake.queues = wish->queues;
	fake.port = wish->port;
	return fake_answer("t", wish->network, outcome);
}

int links_keep_ports(struct links *links, struct verb_outcome *outcome)
{
	return fake_answer("k", NULL, outcome);
}

int guard_apply(struct links *links, struct verb_outcome *outcome)
{
	return fake_answer("a", NULL, outcome);
}

int guard_add_bridge(
	struct links *links, const struct bridge_facts *bridge, struct verb_outcome *outcome)
{
	int error = fake_answer("p", bridge->network, outcome);

	return fake.guard_result ? outcome_fail(outcome, fake.guard_result, "fake guard") : error;
}

int links_delete_tap(struct links *links, uint32_t number, struct verb_outcome *outcome)
{
	fake.number = number;
	return fake_answer("x", NULL, outcome);
}

int links_get_bridge(struct links *links, const char *network, struct bridge_facts *ret_facts,
	struct verb_outcome *outcome)
{
	*ret_facts = (struct bridge_facts){
		.index = 3, .subnet = {{htonl(0xc0a84000)}, 24}, .gateway_offset = 1};
	assert_int_equal(text_copy(ret_facts->network, NETWORK_NAME_SIZE, network), 0);
	return fake_answer("g", network, outcome);
}

int links_get_tap(struct links *links, uint32_t number, struct tap_facts *ret_facts,
	struct verb_outcome *outcome)
{
	fake.number = number;
	*ret_facts = (struct tap_facts){.name = "vmtap", .network = "blue"};
	return fake_answer("T", NULL, outcome);
}

int captures_start(struct captures *captures, const struct verb_start_capture *wanted,
	uint32_t bridge, struct verb_outcome *outcome)
{
	return fake_answer(bridge ? "N" : "I", wanted->network, outcome);
}

int captures_add(struct captures *captures, const struct verb_capture_interface *wanted,
	const struct tap_facts *tap, struct verb_outcome *outcome)
{
	assert_true(memchr(wanted->comment, '\0', sizeof(wanted->comment)));
	return fake_answer("A", NULL, outcome);
}

int captures_end(struct captures *captures, uint32_t number, struct verb_outcome *outcome)
{
	fake.number = number;
	return fake_answer("E", NULL, outcome);
}

int forwards_apply(struct links *links, int file, const struct verb_apply_forwards *call,
	struct verb_outcome *outcome)
{
	assert_true(file >= 0 && call->count <= VERB_FORWARDS_MAX);
	return fake_answer("f", NULL, outcome);
}

int nat_apply(struct links *links, bool is_rootless, struct verb_outcome *outcome)
{
	return fake_answer("n", NULL, outcome);
}

int foreign_report(struct links *links, struct verb_outcome *outcome)
{
	return fake_answer("r", NULL, outcome);
}

int dnsmasq_start(struct dnsmasq_table *table, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, struct verb_outcome *outcome)
{
	return fake_answer("s", facts->network, outcome);
}

int dnsmasq_stop(struct dnsmasq_table *table, const char *network, struct verb_outcome *outcome)
{
	int error = fake_answer("e", network, outcome);

	return fake.stop_result ? outcome_fail(outcome, fake.stop_result, "fake stop") : error;
}

int sockets_force_buffers(
	const int *sockets, size_t sockets_count, uint32_t bytes, struct verb_outcome *outcome)
{
	fake.sockets_count = sockets_count;
	fake.bytes = bytes;
	return fake_answer("f", NULL, outcome);
}

int sockets_open_route(struct verb_outcome *outcome)
{
	return fake_answer("R", NULL, outcome);
}

int sockets_open_nft_events(struct verb_outcome *outcome)
{
	return fake_answer("o", NULL, outcome);
}

int uplink_queues_apply(struct links *links, struct verb_outcome *outcome)
{
	return fake_answer("Q", NULL, outcome);
}

int vhost_open(uint32_t count, struct verb_outcome *outcome)
{
	fake.queues = count;
	return fake_answer("v", NULL, outcome);
}

void linger_limit(void)
{
}

void linger_unlimit(void)
{
}

static int forget_fakes(void **state)
{
	memset(&fake, 0, sizeof(fake));
	return 0;
}

#define INSTANCE 0xfedcba98u

static struct verb_request request_of(enum verb verb)
{
	return (struct verb_request){.magic = VERB_MAGIC, .verb = verb, .sequence = 5};
}

static struct verb_request request_for_bridge(void)
{
	struct verb_request request = request_of(VERB_CREATE_BRIDGE);

	request.create_bridge = (struct verb_create_bridge){
		.network = "blue",
		.mode = NETWORK_MODE_HOST,
		.prefix_length = 24,
		.subnet_address = htonl(0xc0a84000),
		.mtu = 1500,
	};
	return request;
}

static struct verb_request request_for_tap(const char *network, uint32_t queues)
{
	struct verb_request request = request_of(VERB_CREATE_TAP);

	strncpy(request.create_tap.network, network, NETWORK_NAME_SIZE - 1);
	request.create_tap.number = 9;
	request.create_tap.queues = queues;
	return request;
}

static struct verb_request request_for_network(enum verb verb, const char *network)
{
	struct verb_request request = request_of(verb);

	strncpy(request.network.network, network, NETWORK_NAME_SIZE - 1);
	if (verb == VERB_START_DNSMASQ) {
		request.start_dnsmasq.services = VERB_SERVICE_ALL;
		request.start_dnsmasq.lease_s = VERB_LEASE_MIN_S;
	}
	return request;
}

/* Answers it and checks what every answer must be; the reply's fds are closed and counted. */
static struct verb_reply ask_bytes(
	const void *bytes, size_t size, struct fd_list *fds, size_t expected_fds)
{
	struct priv_context context = {.instance = INSTANCE};
	cleanup_outcome struct verb_outcome outcome;
	struct verb_reply reply;
	int result;

	outcome_init(&outcome);
	result = verbs_answer(&context, bytes, size, fds, &reply, &outcome);
	assert_int_equal(result, reply.result);
	assert_int_equal(reply.magic, VERB_MAGIC);
	assert_int_equal(fds->count, 0);
	assert_non_null(memchr(reply.detail, '\0', sizeof(reply.detail)));
	assert_int_equal(result < 0, reply.detail[0] != '\0');
	assert_int_equal(outcome.fds.count, expected_fds);
	return reply;
}

static struct verb_reply ask(const struct verb_request *request)
{
	struct fd_list fds;
	struct verb_reply reply;

	fd_list_init(&fds);
	reply = ask_bytes(request, sizeof(*request), &fds, 0);
	assert_int_equal(reply.sequence, request->sequence);
	assert_int_equal(reply.verb, request->verb);
	return reply;
}

static void assert_refused(const struct verb_request *request, int error)
{
	assert_int_equal(ask(request).result, error);
	assert_int_equal(fake.calls, 0);
}

static void sizes_and_magics_must_fit(void **state)
{
	struct verb_request request = request_of(VERB_APPLY_NAT);
	uint8_t bytes[2 * sizeof(request)] = {0};
	struct fd_list fds;

	fd_list_init(&fds);
	memcpy(bytes, &request, sizeof(request));
	for (size_t size = 0; size <= sizeof(bytes); size++)
		if (size != sizeof(request))
			assert_int_equal(ask_bytes(bytes, size, &fds, 0).result, -EBADMSG);
	request.magic++;
	assert_refused(&request, -EBADMSG);
}

static void unknown_verbs_are_answered(void **state)
{
	struct verb_request request = request_of(VERB_COUNT);

	assert_refused(&request, -EOPNOTSUPP);
	request.verb = UINT32_MAX;
	assert_refused(&request, -EOPNOTSUPP);
	assert_string_equal(verb_to_text(VERB_COUNT), "unknown");
	assert_string_equal(verb_to_text(VERB_CREATE_TAP), "create-tap");
}

static void a_bridge_is_made_as_wished(void **state)
{
	struct verb_request request = request_for_bridge();
	struct verb_reply reply = ask(&request);

	assert_int_equal(reply.result, 0);
	assert_int_equal(reply.value, 77);
	assert_string_equal(fake.network, "blue");
	assert_int_equal(fake.wish.mode, NETWORK_MODE_HOST);
	assert_int_equal(fake.wish.mtu, 1500);
	assert_int_equal(fake.wish.subnet.prefix_length, 24);
	assert_int_equal(fake.wish.subnet.address.s_addr, htonl(0xc0a84000));
}

static void an_uplink_is_a_safe_name_of_a_shared_network(void **state)
{
	static const struct {
		const char *uplink;
		uint8_t mode;
		int expected;
	} cases[] = {
		{"eth1", NETWORK_MODE_SHARED, 0},
		{"eth1", NETWORK_MODE_HOST, -EINVAL},
		{"eth*", NETWORK_MODE_SHARED, -EINVAL},
		{"a\" accept", NETWORK_MODE_SHARED, -EINVAL},
		{"sixteen-letters-", NETWORK_MODE_SHARED, -EINVAL},
		{"..", NETWORK_MODE_SHARED, -EINVAL},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		struct verb_request request = request_for_bridge();

		request.create_bridge.mode = cases[i].mode;
		memcpy(request.create_bridge.uplink, cases[i].uplink,
			strnlen(cases[i].uplink, IFNAMSIZ));
		assert_int_equal(ask(&request).result, cases[i].expected);
	}
}

static void a_bridge_has_its_guard_or_is_none(void **state)
{
	struct verb_request request = request_for_bridge();

	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "bgp");
	fake.guard_result = -EIO;
	assert_int_equal(ask(&request).result, -EIO);
	assert_string_equal(fake.order, "bgpbgpd");
}

static void bad_bridges_are_refused(void **state)
{
	static const struct {
		uint32_t address, mtu;
		uint8_t prefix_length, mode;
	} bad[] = {
		{0xc0a84000, 1500, 7, 0},
		{0xc0a84000, 1500, 31, 0},
		{0xc0a84000, 1500, 32, 0},
		{0xc0a84000, 1500, 0, 0},
		{0xc0a84000, 1500, 255, 0},
		{0xc0a84001, 1500, 24, 0},
		{0xc0a84080, 1500, 24, 0},
		{0x08080800, 1500, 24, 0},
		{0xac200000, 1500, 16, 0},
		{0xc0a84000, 1279, 24, 0},
		{0xc0a84000, 65521, 24, 0},
		{0xc0a84000, 0, 24, 0},
		{0xc0a84000, UINT32_MAX, 24, 0},
		{0xc0a84000, 1500, 24, NETWORK_MODE_BRIDGED},
		{0xc0a84000, 1500, 24, NETWORK_MODE_COUNT},
		{0xc0a84000, 1500, 24, 255},
	};

	for (size_t i = 0; i < array_length(bad); i++) {
		struct verb_request request = request_for_bridge();

		request.create_bridge.subnet_address = htonl(bad[i].address);
		request.create_bridge.mtu = bad[i].mtu;
		request.create_bridge.prefix_length = bad[i].prefix_length;
		request.create_bridge.mode = bad[i].mode;
		assert_refused(&request, -EINVAL);
	}
}

static void only_local_prefixes_are_given_out(void **state)
{
	static const uint8_t bad[] = {0x00, 0x20, 0xfc, 0xfe, 0xff};
	struct verb_request request = request_for_bridge();

	request.create_bridge.has_ipv6 = 1;
	for (size_t i = 0; i < array_length(bad); i++) {
		request.create_bridge.ipv6_prefix[0] = bad[i];
		assert_refused(&request, -EINVAL);
	}
}

static void bad_names_are_refused_by_every_verb(void **state)
{
	static const enum verb verbs[] = {VERB_CREATE_BRIDGE, VERB_DELETE_BRIDGE, VERB_CREATE_TAP,
		VERB_START_DNSMASQ, VERB_STOP_DNSMASQ};
	static const char *const bad[] = {"", "../x", "a/b", "a b", "-a", ".", "a\n", "%s"};

	for (size_t i = 0; i < array_length(verbs); i++) {
		struct verb_request request = request_for_bridge();

		request.verb = verbs[i];
		if (verbs[i] == VERB_CREATE_TAP)
			request = request_for_tap("blue", 1);
		for (size_t k = 0; k < array_length(bad); k++) {
			memset(request.bytes, 0, NETWORK_NAME_SIZE);
			memcpy(request.bytes, bad[k], strlen(bad[k]));
			assert_refused(&request, -EINVAL);
		}
		memset(request.bytes, 'a', NETWORK_NAME_SIZE);
		assert_refused(&request, -EINVAL);
	}
}

static void a_tap_has_one_to_eight_queues(void **state)
{
	struct verb_request request = request_for_tap("blue", 0);

	assert_refused(&request, -EINVAL);
	request = request_for_tap("blue", VERB_QUEUES_MAX + 1);
	assert_refused(&request, -EINVAL);
	request = request_for_tap("blue", UINT32_MAX);
	assert_refused(&request, -EINVAL);
	request = request_for_tap("blue", VERB_QUEUES_MAX);
	assert_int_equal(ask(&request).result, 0);
	assert_int_equal(fake.queues, VERB_QUEUES_MAX);
	assert_int_equal(fake.number, 9);
	request = request_of(VERB_DELETE_TAP);
	request.delete_tap.number = 0xabc;
	assert_int_equal(ask(&request).result, 0);
	assert_int_equal(fake.number, 0xabc);
}

static struct verb_request request_for_locked_tap(uint32_t address, struct mac mac)
{
	struct verb_request request = request_for_tap("blue", 1);

	request.create_tap.port = VERB_PORT_LOCKED;
	request.create_tap.address = htonl(address);
	memcpy(request.create_tap.mac, mac.bytes, sizeof(mac.bytes));
	return request;
}

static const struct mac vm_mac = {{0x52, 0x54, 0, 0, 0, 1}};

static void a_tap_has_the_port_that_was_asked_for(void **state)
{
	struct verb_request request = request_for_tap("blue", 1);

	assert_int_equal(ask(&request).result, 0);
	assert_false(fake.port.isolated || fake.port.locked);
	request.create_tap.port = VERB_PORT_ISOLATED;
	assert_int_equal(ask(&request).result, 0);
	assert_true(fake.port.isolated && !fake.port.locked);
	request = request_for_locked_tap(0xc0a84002, vm_mac);
	assert_int_equal(ask(&request).result, 0);
	assert_true(fake.port.locked && !fake.port.isolated);
	assert_memory_equal(&fake.port.mac, &vm_mac, sizeof(vm_mac));
	assert_int_equal(fake.port.address.s_addr, htonl(0xc0a84002));
	assert_false(fake.port.named);
}

static void a_named_tap_has_one_queue_and_an_owner(void **state)
{
	struct verb_request request = request_for_tap("blue", 1);

	request.create_tap.port = VERB_PORT_NAMED | VERB_PORT_ISOLATED;
	request.create_tap.owner = UINT32_MAX;
	assert_refused(&request, -EINVAL);
	request.create_tap.owner = LINK_OWNER_MAX;
	request.create_tap.queues = 2;
	assert_refused(&request, -EINVAL);
	request.create_tap.queues = 1;
	assert_int_equal(ask(&request).result, 0);
	assert_true(fake.port.named && fake.port.isolated);
	assert_int_equal(fake.port.owner, LINK_OWNER_MAX);
	request.create_tap.port = 0;
	assert_int_equal(ask(&request).result, 0);
	assert_false(fake.port.named || fake.port.owner);
}

static void ports_that_cannot_be_are_refused(void **state)
{
	/* The host's own, the subnet's two, and others' (the fake subnet is 192.168.64.0/24). */
	static const uint32_t addresses[] = {
		0, 0xc0a84001, 0xc0a84000, 0xc0a840ff, 0xc0a84102, 0x08080808};
	static const struct mac macs[] = {
		{{0}},
		{{1, 0, 0x5e, 0, 0, 1}},
		{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{{0xfe, 0x76, 0, 0, 0, 1}},
		{{0xfe, 0x77, 0, 0, 0, 1}},
	};
	struct verb_request request = request_for_tap("blue", 1);

	request.create_tap.port = VERB_PORT_ALL + 1;
	assert_refused(&request, -EINVAL);
	for (size_t i = 0; i < array_length(macs); i++) {
		request = request_for_locked_tap(0xc0a84002, macs[i]);
		assert_refused(&request, -EINVAL);
	}
	for (size_t i = 0; i < array_length(addresses); i++) {
		request = request_for_locked_tap(addresses[i], vm_mac);
		assert_int_equal(ask(&request).result, -EINVAL);
		assert_null(strchr(fake.order, 't'));
	}
}

static void the_guard_is_applied_with_the_ports(void **state)
{
	struct verb_request request = request_of(VERB_APPLY_GUARD);

	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "ak");
}

static void a_failed_verb_hands_out_no_fds(void **state)
{
	struct verb_request request = request_for_tap("blue", 2);
	struct fd_list fds;

	fd_list_init(&fds);
	fake.fds = 2;
	assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 2).result, 0);
	fake.result = -EIO;
	assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 0).result, -EIO);
}

static void details_are_one_line(void **state)
{
	struct verb_request request = request_of(VERB_APPLY_NAT);
	struct verb_reply reply;

	fake.result = -EIO;
	reply = ask(&request);
	assert_string_equal(reply.detail, "fake refusal");
	assert_int_equal(reply.value, 0);
}

static void a_bridge_in_use_keeps_its_dnsmasq(void **state)
{
	struct verb_request request = request_for_network(VERB_DELETE_BRIDGE, "blue");

	fake.result = -EBUSY;
	assert_int_equal(ask(&request).result, -EBUSY);
	assert_string_equal(fake.order, "u");
}

static void dnsmasq_ends_before_its_bridge(void **state)
{
	struct verb_request request = request_for_network(VERB_DELETE_BRIDGE, "blue");

	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "ueda");
	fake.stop_result = -ESRCH;
	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "uedaueda");
	fake.stop_result = -EPERM;
	assert_int_equal(ask(&request).result, -EPERM);
	assert_string_equal(fake.order, "uedauedaue");
}

static void dnsmasq_serves_what_the_kernel_knows(void **state)
{
	struct verb_request request = request_for_network(VERB_START_DNSMASQ, "blue");

	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "gs");
	request.verb = VERB_STOP_DNSMASQ;
	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "gse");
	fake.result = -ENOENT;
	request.verb = VERB_START_DNSMASQ;
	assert_int_equal(ask(&request).result, -ENOENT);
	assert_string_equal(fake.order, "gseg");
}

static void impossible_services_are_refused(void **state)
{
	static const struct {
		uint32_t services, lease_s, last_offset;
		const char *domain;
	} bad[] = {
		{VERB_SERVICE_ALL + 1, 600, 0, ""},
		{VERB_SERVICE_DHCP, VERB_LEASE_MIN_S - 1, 0, ""},
		{VERB_SERVICE_DHCP, VERB_LEASE_MAX_S + 1, 0, ""},
		{VERB_SERVICE_DHCP, 600, 1, ""},
		{VERB_SERVICE_DHCP, 600, 255, ""},
		{VERB_SERVICE_DHCP, 600, 0, "a b"},
		{VERB_SERVICE_DHCP, 600, 0, "a..b"},
		{VERB_SERVICE_DHCP, 600, 0, "a,b"},
		{VERB_SERVICE_DHCP, 600, 0, "/etc"},
	};

	for (size_t i = 0; i < array_length(bad); i++) {
		struct verb_request request = request_for_network(VERB_START_DNSMASQ, "blue");

		request.start_dnsmasq.services = bad[i].services;
		request.start_dnsmasq.lease_s = bad[i].lease_s;
		request.start_dnsmasq.last_offset = bad[i].last_offset;
		strcpy(request.start_dnsmasq.domain, bad[i].domain);
		assert_int_equal(ask(&request).result, -EINVAL);
		assert_null(strchr(fake.order, 's'));
	}
}

static void fill_fds(struct fd_list *fds, size_t count)
{
	fd_list_init(fds);
	for (fds->count = 0; fds->count < count; fds->count++) {
		fds->fds[fds->count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(fds->fds[fds->count] >= 0);
	}
}

static void fds_are_taken_only_where_they_belong(void **state)
{
	for (uint32_t verb = 0; verb < VERB_COUNT; verb++) {
		struct verb_request request = request_of((enum verb)verb);
		struct fd_list fds;
		int first;

		fill_fds(&fds, VERB_SOCKETS_MAX + 1);
		first = fds.fds[0];
		assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 0).result, -EINVAL);
		assert_int_equal(fcntl(first, F_GETFD), -1);
		assert_int_equal(fake.calls, 0);
	}
}

static void buffers_are_forced_for_one_or_two(void **state)
{
	struct verb_request request = request_of(VERB_FORCE_BUFFERS);
	struct fd_list fds;

	request.force_buffers.bytes = 4096;
	assert_refused(&request, -EINVAL);
	for (size_t count = 1; count <= VERB_SOCKETS_MAX; count++) {
		fill_fds(&fds, count);
		assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 0).result, 0);
		assert_int_equal(fake.sockets_count, count);
		assert_int_equal(fake.bytes, 4096);
	}
}

static void forwards_come_in_one_file_and_are_few(void **state)
{
	struct verb_request request = request_of(VERB_APPLY_FORWARDS);
	struct fd_list fds;

	assert_refused(&request, -EINVAL);
	for (size_t count = 1; count <= 2; count++) {
		fill_fds(&fds, count);
		request.apply_forwards.count = VERB_FORWARDS_MAX + (count == 1);
		assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 0).result, -EINVAL);
		assert_int_equal(fake.calls, 0);
	}
	fill_fds(&fds, 1);
	assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 0).result, 0);
	assert_int_equal(fake.calls, 1);
}

static void the_instance_is_told(void **state)
{
	struct verb_request request = request_of(VERB_GET_INSTANCE);
	struct verb_reply reply = ask_bytes(&request, sizeof(request), &(struct fd_list){0}, 0);

	assert_int_equal(reply.result, 0);
	assert_int_equal(reply.value, INSTANCE);
}

static void nft_events_come_as_one_fd(void **state)
{
	struct verb_request request = request_of(VERB_OPEN_NFT_EVENTS);
	struct fd_list fds;

	fd_list_init(&fds);
	fake.fds = 1;
	assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 1).result, 0);
	assert_string_equal(fake.order, "o");
}

static void route_socket_comes_as_one_fd(void **state)
{
	struct verb_request request = request_of(VERB_OPEN_ROUTE_SOCKET);
	struct fd_list fds;

	fd_list_init(&fds);
	fake.fds = 1;
	assert_int_equal(ask_bytes(&request, sizeof(request), &fds, 1).result, 0);
	assert_string_equal(fake.order, "R");
}

static void vhost_is_opened_one_to_eight_times(void **state)
{
	struct verb_request request = request_of(VERB_OPEN_VHOST);
	struct fd_list fds;

	for (uint32_t count = 1; count <= VERB_QUEUES_MAX; count++) {
		fd_list_init(&fds);
		fake.fds = count;
		request.open_vhost.count = count;
		assert_int_equal(ask_bytes(&request, sizeof(request), &fds, count).result, 0);
		assert_int_equal(fake.queues, count);
	}
	fake.calls = 0;
	request.open_vhost.count = 0;
	assert_refused(&request, -EINVAL);
	request.open_vhost.count = VERB_QUEUES_MAX + 1;
	assert_refused(&request, -EINVAL);
	request.open_vhost.count = UINT32_MAX;
	assert_refused(&request, -EINVAL);
}

/* A pair as priv makes it: ours non-blocking. */
static void open_pair(int *ret_ours, int *ret_theirs)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	*ret_ours = ends[0];
	*ret_theirs = ends[1];
}

static void requests_are_answered_over_a_socket(void **state)
{
	struct verb_request request = request_for_tap("blue", 3);
	struct priv_context context = {0};
	cleanup_fds struct fd_list fds;
	cleanup_fd int ours = -1;
	cleanup_fd int theirs = -1;
	struct verb_reply reply;
	struct verb_reply seen;

	fd_list_init(&fds);
	fake.fds = 3;
	open_pair(&ours, &theirs);
	assert_int_equal(verbs_serve(&context, ours, &seen), -EAGAIN);
	assert_int_equal(fd_send(theirs, &request, sizeof(request), NULL, 0), sizeof(request));
	assert_int_equal(verbs_serve(&context, ours, &seen), 1);
	assert_int_equal(fd_receive(theirs, &reply, sizeof(reply), &fds), sizeof(reply));
	assert_int_equal(fds.count, 3);
	assert_int_equal(reply.sequence, 5);
	assert_int_equal(reply.result, 0);
	assert_memory_equal(&reply, &seen, sizeof(reply));
	fd_close(take_fd(&theirs));
	assert_int_equal(verbs_serve(&context, ours, &seen), 0);
}

static void overlong_messages_are_answered(void **state)
{
	uint8_t bytes[4096] = {0};
	struct priv_context context = {0};
	cleanup_fds struct fd_list fds;
	cleanup_fd int ours = -1;
	cleanup_fd int theirs = -1;
	struct verb_reply reply;

	fd_list_init(&fds);
	open_pair(&ours, &theirs);
	assert_int_equal(fd_send(theirs, bytes, sizeof(bytes), &theirs, 1), sizeof(bytes));
	assert_int_equal(verbs_serve(&context, ours, &reply), 1);
	assert_int_equal(reply.result, -EBADMSG);
	assert_int_equal(fd_receive(theirs, &reply, sizeof(reply), &fds), sizeof(reply));
	assert_int_equal(reply.result, -EBADMSG);
	assert_int_equal(fake.calls, 0);
}

static void a_front_that_reads_nothing_is_noticed(void **state)
{
	struct verb_request request = request_of(VERB_APPLY_NAT);
	struct priv_context context = {0};
	cleanup_fd int ours = -1;
	cleanup_fd int theirs = -1;
	struct verb_reply reply;
	int result = 1;

	open_pair(&ours, &theirs);
	for (unsigned int i = 0; i < 100000 && result == 1; i++) {
		assert_true(fd_send(theirs, &request, sizeof(request), NULL, 0) > 0);
		result = verbs_serve(&context, ours, &reply);
	}
	assert_int_equal(result, -ENOBUFS);
	fd_close(take_fd(&theirs));
	assert_true(verbs_serve(&context, ours, &reply) <= 0);
}

static void a_burst_passes_and_a_flood_waits(void **state)
{
	struct verb_pace pace = {0};
	uint64_t now_us = 5000000;
	uint64_t delay_us;

	for (unsigned int i = 0; i < VERB_BURST; i++)
		assert_int_equal(verb_pace_take(&pace, now_us), 0);
	delay_us = verb_pace_take(&pace, now_us);
	assert_int_equal(delay_us, 1000000 / VERB_BURST);
	assert_int_equal(verb_pace_take(&pace, now_us), delay_us);
	now_us += delay_us;
	assert_int_equal(verb_pace_take(&pace, now_us), 0);
	assert_int_not_equal(verb_pace_take(&pace, now_us), 0);
	now_us += 10000000;
	for (unsigned int i = 0; i < VERB_BURST; i++)
		assert_int_equal(verb_pace_take(&pace, now_us), 0);
	assert_int_not_equal(verb_pace_take(&pace, now_us), 0);
}

static void an_outcome_holds_only_so_many_fds(void **state)
{
	cleanup_outcome struct verb_outcome outcome;
	int fd;

	outcome_init(&outcome);
	for (size_t i = 0; i < FD_PASS_MAX; i++)
		assert_int_equal(outcome_add_fd(&outcome, open("/dev/null", O_CLOEXEC)), 0);
	fd = open("/dev/null", O_CLOEXEC);
	assert_int_equal(outcome_add_fd(&outcome, fd), -ENOSPC);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_capture_is_checked_before_anything_runs(void **state)
{
	struct verb_request request = request_of(VERB_START_CAPTURE);

	request.start_capture = (struct verb_start_capture){
		.network = "blue", .end = VERB_CAPTURE_UNTIL_NETWORK, .snaplen = VERB_SNAPLEN_MAX};
	assert_int_equal(ask(&request).result, 0);
	request.start_capture.end = VERB_CAPTURE_UNTIL_INTERFACE;
	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "gNI");
	forget_fakes(NULL);
	request.start_capture.end = VERB_CAPTURE_END_COUNT;
	assert_int_equal(ask(&request).result, -EINVAL);
	request.start_capture.end = 0;
	request.start_capture.snaplen = VERB_SNAPLEN_MIN - 1;
	assert_int_equal(ask(&request).result, -EINVAL);
	request.start_capture.snaplen = VERB_SNAPLEN_MAX + 1;
	assert_int_equal(ask(&request).result, -EINVAL);
	request.start_capture.snaplen = VERB_SNAPLEN_MAX;
	memset(request.start_capture.network, 'x', NETWORK_NAME_SIZE);
	assert_int_equal(ask(&request).result, -EINVAL);
	assert_int_equal(fake.calls, 0);
}

static void a_captured_interface_is_ours_and_its_comment_is_text(void **state)
{
	struct verb_request request = request_of(VERB_CAPTURE_INTERFACE);

	request.capture_interface =
		(struct verb_capture_interface){.capture = 1, .number = 9, .comment = "web"};
	assert_int_equal(ask(&request).result, 0);
	assert_string_equal(fake.order, "TA");
	assert_int_equal(fake.number, 9);
	forget_fakes(NULL);
	fake.result = -ENOENT;
	assert_int_equal(ask(&request).result, -ENOENT);
	assert_string_equal(fake.order, "T");
	forget_fakes(NULL);
	request.capture_interface.comment[0] = '\n';
	assert_int_equal(ask(&request).result, -EINVAL);
	request.capture_interface.comment[0] = '\x80';
	assert_int_equal(ask(&request).result, -EINVAL);
	memset(request.capture_interface.comment, 'x', VERB_CAPTURE_COMMENT);
	assert_int_equal(ask(&request).result, -EINVAL);
	assert_int_equal(fake.calls, 0);
	request = request_of(VERB_END_CAPTURE);
	request.end_capture.capture = 7;
	assert_int_equal(ask(&request).result, 0);
	assert_int_equal(fake.number, 7);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(sizes_and_magics_must_fit, forget_fakes),
		cmocka_unit_test_setup(unknown_verbs_are_answered, forget_fakes),
		cmocka_unit_test_setup(a_bridge_is_made_as_wished, forget_fakes),
		cmocka_unit_test_setup(bad_bridges_are_refused, forget_fakes),
		cmocka_unit_test_setup(only_local_prefixes_are_given_out, forget_fakes),
		cmocka_unit_test_setup(bad_names_are_refused_by_every_verb, forget_fakes),
		cmocka_unit_test_setup(a_tap_has_one_to_eight_queues, forget_fakes),
		cmocka_unit_test_setup(a_failed_verb_hands_out_no_fds, forget_fakes),
		cmocka_unit_test_setup(details_are_one_line, forget_fakes),
		cmocka_unit_test_setup(a_bridge_in_use_keeps_its_dnsmasq, forget_fakes),
		cmocka_unit_test_setup(dnsmasq_ends_before_its_bridge, forget_fakes),
		cmocka_unit_test_setup(impossible_services_are_refused, forget_fakes),
		cmocka_unit_test_setup(dnsmasq_serves_what_the_kernel_knows, forget_fakes),
		cmocka_unit_test_setup(an_uplink_is_a_safe_name_of_a_shared_network, forget_fakes),
		cmocka_unit_test_setup(a_bridge_has_its_guard_or_is_none, forget_fakes),
		cmocka_unit_test_setup(a_tap_has_the_port_that_was_asked_for, forget_fakes),
		cmocka_unit_test_setup(a_named_tap_has_one_queue_and_an_owner, forget_fakes),
		cmocka_unit_test_setup(ports_that_cannot_be_are_refused, forget_fakes),
		cmocka_unit_test_setup(the_guard_is_applied_with_the_ports, forget_fakes),
		cmocka_unit_test_setup(fds_are_taken_only_where_they_belong, forget_fakes),
		cmocka_unit_test_setup(buffers_are_forced_for_one_or_two, forget_fakes),
		cmocka_unit_test_setup(forwards_come_in_one_file_and_are_few, forget_fakes),
		cmocka_unit_test_setup(the_instance_is_told, forget_fakes),
		cmocka_unit_test_setup(nft_events_come_as_one_fd, forget_fakes),
		cmocka_unit_test_setup(route_socket_comes_as_one_fd, forget_fakes),
		cmocka_unit_test_setup(vhost_is_opened_one_to_eight_times, forget_fakes),
		cmocka_unit_test_setup(a_capture_is_checked_before_anything_runs, forget_fakes),
		cmocka_unit_test_setup(
			a_captured_interface_is_ours_and_its_comment_is_text, forget_fakes),
		cmocka_unit_test_setup(requests_are_answered_over_a_socket, forget_fakes),
		cmocka_unit_test_setup(overlong_messages_are_answered, forget_fakes),
		cmocka_unit_test_setup(a_front_that_reads_nothing_is_noticed, forget_fakes),
		cmocka_unit_test_setup(a_burst_passes_and_a_flood_waits, forget_fakes),
		cmocka_unit_test_setup(an_outcome_holds_only_so_many_fds, forget_fakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
