/* What the forwarder lets a front do, and which forwards it takes. Sockets are of the loopback. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "forwarder/address.h"
#include "forwarder/requests.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

struct fixture {
	struct loop loop;
	struct streams streams;
	struct datagrams datagrams;
	struct listeners listeners;
	bool has_begun;
	char detail[FORWARDER_DETAIL_SIZE];
};

static int make_fixture(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	*state = fixture;
	if (loop_init(&fixture->loop) < 0 ||
		streams_init(&fixture->streams, &fixture->loop, 4) < 0 ||
		datagrams_init(&fixture->datagrams, &fixture->loop, 4) < 0)
		return -1;
	return listeners_init(
		&fixture->listeners, &fixture->loop, &fixture->streams, &fixture->datagrams);
}

static int remove_fixture(void **state)
{
	struct fixture *fixture = *state;

	listeners_done(&fixture->listeners);
	datagrams_done(&fixture->datagrams);
	streams_done(&fixture->streams);
	loop_done(&fixture->loop);
	free(fixture);
	return 0;
}

/* A bound UDP socket of the loopback and the forward it is for. */
static int open_udp(struct forwarder_forward *ret_forward)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	*ret_forward = (struct forwarder_forward){
		.protocol = IPPROTO_UDP,
		.listen_port = ntohs(address.sin_port),
		.target_port = 53,
		.listen = {127, 0, 0, 1},
		.target = {10, 0, 0, 2},
	};
	return fd;
}

/* fd (-1: none) is taken over. */
static int serve(struct fixture *fixture, uint32_t kind, const struct forwarder_forward *forward,
	int fd, bool ends_flows)
{
	struct forwarder_request request = {
		.magic = FORWARDER_MAGIC,
		.kind = kind,
		.ends_flows = ends_flows,
	};
	cleanup_fds struct fd_list fds;

	fd_list_init(&fds);
	if (fd >= 0)
		fds.fds[fds.count++] = fd;
	if (forward)
		request.forward = *forward;
	*fixture->detail = '\0';
	return request_serve(
		&fixture->listeners, &request, &fds, &fixture->has_begun, fixture->detail);
}

static struct listener *find_used(struct fixture *fixture)
{
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX; i++)
		if (fixture->listeners.all[i].fd >= 0)
			return &fixture->listeners.all[i];
	return NULL;
}

static void a_list_is_declared_whole(void **state)
{
	struct fixture *fixture = *state;
	struct forwarder_forward one, other;
	int fds[2] = {open_udp(&one), open_udp(&other)};

	assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, false), -EINVAL);
	assert_int_equal(serve(fixture, FORWARDER_BEGIN, NULL, -1, false), 0);
	assert_int_equal(serve(fixture, FORWARDER_ADD, &one, -1, false), -ENOENT);
	assert_true(*fixture->detail);
	assert_int_equal(serve(fixture, FORWARDER_ADD, &one, fds[0], false), 0);
	assert_int_equal(serve(fixture, FORWARDER_ADD, &other, fds[1], false), 0);
	assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, false), 2);
	assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, false), -EINVAL);
	assert_int_equal(serve(fixture, FORWARDER_BEGIN, NULL, -1, false), 0);
	one.target[3] = 9;
	assert_int_equal(serve(fixture, FORWARDER_ADD, &one, -1, false), 0);
	assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, false), 1);
	assert_memory_equal(&find_used(fixture)->forward, &one, sizeof(one));
}

static void a_second_socket_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct forwarder_forward one, other;
	int fd = open_udp(&one), second = open_udp(&other);

	assert_int_equal(serve(fixture, FORWARDER_ADD, &one, fd, false), 0);
	assert_int_equal(serve(fixture, FORWARDER_ADD, &one, second, false), -EEXIST);
	assert_true(*fixture->detail);
}

static void strange_requests_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct forwarder_forward forward;

	assert_int_equal(
		serve(fixture, FORWARDER_BEGIN, NULL, open_udp(&forward), false), -EBADMSG);
	assert_int_equal(serve(fixture, FORWARDER_KIND_COUNT, NULL, -1, false), -EBADMSG);
	assert_int_equal(serve(fixture, UINT32_MAX, NULL, -1, false), -EBADMSG);
	assert_false(fixture->has_begun);
	assert_int_equal(fixture->listeners.count, 0);
}

static struct flow *begin_flow(struct fixture *fixture, uint16_t port)
{
	struct listener *listener = find_used(fixture);
	const struct flow_key key = {.listener = listener, .port = port};
	struct flow *flow = flows_add(&fixture->datagrams.flows, &key, fixture->loop.now_ms);

	flow->forward = listener->forward;
	return flow;
}

static void flows_end_with_their_forward_or_its_target(void **state)
{
	struct fixture *fixture = *state;
	struct flows *flows = &fixture->datagrams.flows;
	struct forwarder_forward forward;
	int fd = open_udp(&forward);

	assert_int_equal(serve(fixture, FORWARDER_ADD, &forward, fd, false), 0);
	begin_flow(fixture, 1);
	for (size_t i = 0; i < 2; i++) {
		serve(fixture, FORWARDER_BEGIN, NULL, -1, false);
		forward.target_port = i == 0 ? 53 : 54;
		serve(fixture, FORWARDER_ADD, &forward, -1, false);
		assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, i == 0), 1);
		assert_int_equal(flows->count, 1);
	}
	begin_flow(fixture, 2);
	serve(fixture, FORWARDER_BEGIN, NULL, -1, false);
	serve(fixture, FORWARDER_ADD, &forward, -1, false);
	assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, true), 1);
	assert_int_equal(flows->count, 1);
	assert_int_equal(flows->oldest->key.port, 2);
	serve(fixture, FORWARDER_BEGIN, NULL, -1, false);
	assert_int_equal(serve(fixture, FORWARDER_END, NULL, -1, false), 0);
	assert_int_equal(flows->count, 0);
}

static void silent_flows_end(void **state)
{
	struct fixture *fixture = *state;
	struct forwarder_forward forward;
	int fd = open_udp(&forward);
	struct flow *flow;

	assert_int_equal(serve(fixture, FORWARDER_ADD, &forward, fd, false), 0);
	flow = begin_flow(fixture, 1);
	begin_flow(fixture, 2);
	fixture->loop.now_ms += FLOW_IDLE_MS - 1;
	flows_use(&fixture->datagrams.flows, flow, fixture->loop.now_ms);
	datagrams_expire(&fixture->datagrams);
	assert_int_equal(fixture->datagrams.flows.count, 2);
	fixture->loop.now_ms++;
	datagrams_expire(&fixture->datagrams);
	assert_int_equal(fixture->datagrams.flows.count, 1);
	assert_ptr_equal(fixture->datagrams.flows.oldest, flow);
	assert_true(datagrams_have_flows(&fixture->datagrams));
}

static void forwards_lead_to_other_machines(void **state)
{
	static const struct {
		const char *target;
		bool is_valid;
	} cases[] = {
		{"10.0.0.2", true},
		{"223.255.255.254", true},
		{"0.0.0.0", false},
		{"0.1.2.3", false},
		{"127.0.0.1", false},
		{"127.255.255.254", false},
		{"224.0.0.1", false},
		{"255.255.255.255", false},
		{"fd00::2", true},
		{"2001:db8::1", true},
		{"::", false},
		{"::1", false},
		{"::10.0.0.2", false},
		{"::ffff:10.0.0.2", false},
		{"fe80::1", false},
		{"febf::1", false},
		{"fec0::1", true},
		{"ff02::1", false},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		bool is_ipv6 = strchr(cases[i].target, ':') != NULL;
		uint8_t bytes[16] = {0};

		inet_pton(is_ipv6 ? AF_INET6 : AF_INET, cases[i].target, bytes);
		if (address_is_target(is_ipv6, bytes) != cases[i].is_valid)
			fail_msg("%s", cases[i].target);
	}
}

static void malformed_forwards_are_refused(void **state)
{
	const struct forwarder_forward good = {
		.protocol = IPPROTO_TCP,
		.listen_port = 8080,
		.target_port = 80,
		.target = {10, 0, 0, 2},
	};
	struct forwarder_forward bad[7];

	assert_true(forward_is_valid(&good));
	for (size_t i = 0; i < array_length(bad); i++)
		bad[i] = good;
	bad[0].is_ipv6 = 2;
	bad[1].protocol = IPPROTO_ICMP;
	bad[2].listen_port = 0;
	bad[3].target_port = 0;
	bad[4].listen[4] = 1;
	bad[5].target[15] = 1;
	bad[6].target[0] = 127;
	for (size_t i = 0; i < array_length(bad); i++)
		assert_false(forward_is_valid(&bad[i]));
}

static void addresses_are_compared_whole(void **state)
{
	static const uint8_t bytes[16] = {10, 0, 0, 2};
	struct sockaddr_storage address;

	assert_int_equal(address_make(false, bytes, 80, &address), sizeof(struct sockaddr_in));
	assert_true(address_is(&address, false, bytes, 80));
	assert_false(address_is(&address, false, bytes, 81));
	assert_false(address_is(&address, true, bytes, 80));
	assert_int_equal(address_make(true, bytes, 80, &address), sizeof(struct sockaddr_in6));
	assert_true(address_is(&address, true, bytes, 80));
	assert_false(address_is(&address, false, bytes, 80));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_list_is_declared_whole, make_fixture, remove_fixture),
		cmocka_unit_test_setup_teardown(
			a_second_socket_is_refused, make_fixture, remove_fixture),
		cmocka_unit_test_setup_teardown(
			strange_requests_are_refused, make_fixture, remove_fixture),
		cmocka_unit_test_setup_teardown(
			flows_end_with_their_forward_or_its_target, make_fixture, remove_fixture),
		cmocka_unit_test_setup_teardown(silent_flows_end, make_fixture, remove_fixture),
		cmocka_unit_test(forwards_lead_to_other_machines),
		cmocka_unit_test(malformed_forwards_are_refused),
		cmocka_unit_test(addresses_are_compared_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
