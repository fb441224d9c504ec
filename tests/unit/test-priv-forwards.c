/* What priv lets through of a list of forwards, and the rules it makes of it. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "priv/forwards-flows.h"
#include "priv/forwards.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static struct bridge_facts make_bridge(
	const char *name, enum network_mode mode, const char *subnet, uint32_t gateway_offset)
{
	struct bridge_facts bridge = {.mode = mode, .gateway_offset = gateway_offset};

	text_copy(bridge.name, sizeof(bridge.name), name);
	assert_int_equal(text_to_ipv4_subnet(subnet, &bridge.subnet), 0);
	return bridge;
}

/* fd12:3456:789a:1::/64 */
static void give_prefix(struct bridge_facts *bridge)
{
	static const uint8_t prefix[IPV6_PREFIX_SIZE] = {0xfd, 0x12, 0x34, 0x56, 0x78, 0x9a, 0, 1};

	bridge->has_ipv6 = true;
	memcpy(bridge->ipv6_prefix, prefix, sizeof(prefix));
}

/* listen "" is every address. */
static struct verb_forward make_forward(uint8_t protocol, const char *listen, uint16_t listen_port,
	const char *target, uint16_t target_port)
{
	struct verb_forward forward = {
		.is_ipv6 = strchr(target, ':') != NULL,
		.protocol = protocol,
		.listen_port = listen_port,
		.target_port = target_port,
	};
	int family = forward.is_ipv6 ? AF_INET6 : AF_INET;

	assert_int_equal(inet_pton(family, target, forward.target), 1);
	if (*listen)
		assert_int_equal(inet_pton(family, listen, forward.listen), 1);
	return forward;
}

static void expect_malformed(const struct verb_forward *forwards, size_t count)
{
	struct verb_outcome outcome;

	outcome_init(&outcome);
	assert_int_equal(forwards_check(forwards, count, &outcome), -EINVAL);
	assert_true(*outcome.detail);
}

static void malformed_forwards_are_refused(void **state)
{
	const struct verb_forward good = make_forward(IPPROTO_TCP, "", 8080, "10.0.0.2", 80);
	struct verb_outcome outcome;
	struct verb_forward bad;

	outcome_init(&outcome);
	assert_int_equal(forwards_check(&good, 1, &outcome), 0);
	assert_int_equal(forwards_check(NULL, 0, &outcome), 0);
	bad = good;
	bad.protocol = IPPROTO_SCTP;
	expect_malformed(&bad, 1);
	bad = good;
	bad.is_ipv6 = 2;
	expect_malformed(&bad, 1);
	bad = good;
	bad.listen_port = 0;
	expect_malformed(&bad, 1);
	bad = good;
	bad.target_port = 0;
	expect_malformed(&bad, 1);
	bad = good;
	bad.listen[4] = 1;
	expect_malformed(&bad, 1);
	bad = good;
	bad.target[15] = 1;
	expect_malformed(&bad, 1);
}

static void a_port_is_there_once(void **state)
{
	struct verb_forward forwards[] = {
		make_forward(IPPROTO_TCP, "", 8080, "10.0.0.2", 80),
		make_forward(IPPROTO_UDP, "", 8080, "10.0.0.2", 80),
		make_forward(IPPROTO_TCP, "127.0.0.1", 8080, "10.0.0.2", 80),
		make_forward(IPPROTO_TCP, "", 8080, "fd00::2", 80),
		make_forward(IPPROTO_TCP, "", 8081, "10.0.0.2", 80),
	};
	struct verb_outcome outcome;

	outcome_init(&outcome);
	assert_int_equal(forwards_check(forwards, array_length(forwards), &outcome), 0);
	forwards[4].listen_port = 8080;
	expect_malformed(forwards, array_length(forwards));
}

static void targets_are_vms_of_ours(void **state)
{
	struct bridge_facts bridges[] = {
		make_bridge("vmbr1", NETWORK_MODE_SHARED, "10.0.0.0/24", 1),
		make_bridge("vmbr2", NETWORK_MODE_HOST, "10.0.1.0/24", 9),
		make_bridge("vmbr3", NETWORK_MODE_SHARED, "10.0.3.0/24", 1),
	};
	static const struct {
		const char *target;
		int bridge;
	} cases[] = {
		{"10.0.0.2", 0},
		{"10.0.1.254", 1},
		{"10.0.1.1", 1},
		{"10.0.0.0", -1},
		{"10.0.0.255", -1},
		{"10.0.0.1", -1},
		{"10.0.1.9", -1},
		{"10.0.2.2", -1},
		{"127.0.0.1", -1},
		{"fd00::2", -1},
		{"fd12:3456:789a:1::2", 2},
		{"fd12:3456:789a:1:8000::", 2},
		{"fd12:3456:789a:1::", -1},
		{"fd12:3456:789a:1::1", -1},
		{"fd12:3456:789a:2::2", -1},
	};

	give_prefix(&bridges[2]);
	for (size_t i = 0; i < array_length(cases); i++) {
		struct verb_forward forward =
			make_forward(IPPROTO_TCP, "", 8080, cases[i].target, 80);

		assert_ptr_equal(forwards_find_bridge(&forward, bridges, array_length(bridges)),
			cases[i].bridge < 0 ? NULL : &bridges[cases[i].bridge]);
	}
}

static void the_gateways_services_stay(void **state)
{
	struct bridge_facts bridge = make_bridge("vmbr1", NETWORK_MODE_SHARED, "10.0.0.0/24", 1);
	static const struct {
		uint8_t protocol;
		const char *listen;
		uint16_t port;
		bool takes;
	} cases[] = {
		{IPPROTO_TCP, "", 53, true},
		{IPPROTO_UDP, "", 53, true},
		{IPPROTO_UDP, "", 67, true},
		{IPPROTO_TCP, "", 67, false},
		{IPPROTO_UDP, "10.0.0.1", 53, true},
		{IPPROTO_UDP, "10.0.0.1", 67, true},
		{IPPROTO_UDP, "10.0.0.1", 68, false},
		{IPPROTO_UDP, "198.51.100.2", 53, false},
		{IPPROTO_UDP, "fd12:3456:789a:1::1", 547, true},
		{IPPROTO_TCP, "fd12:3456:789a:1::1", 53, true},
		{IPPROTO_TCP, "fd12:3456:789a:1::1", 547, false},
		{IPPROTO_TCP, "fd12:3456:789a:2::1", 53, false},
	};

	give_prefix(&bridge);

	for (size_t i = 0; i < array_length(cases); i++) {
		struct verb_forward forward = make_forward(cases[i].protocol, cases[i].listen,
			cases[i].port,
			strchr(cases[i].listen, ':') ? "fd12:3456:789a:1::2" : "10.0.0.2", 53);

		assert_int_equal(forwards_takes_service(&forward, &bridge, 1), cases[i].takes);
	}
}

static void the_table_has_every_forward_in_its_map(void **state)
{
	struct bridge_facts bridges[] = {
		make_bridge("vmbr1", NETWORK_MODE_SHARED, "10.0.0.0/24", 1),
		make_bridge("vmbr2", NETWORK_MODE_HOST, "10.0.1.0/24", 1),
	};
	const struct verb_forward forwards[] = {
		make_forward(IPPROTO_TCP, "", 8080, "10.0.0.2", 80),
		make_forward(IPPROTO_UDP, "198.51.100.2", 53, "10.0.1.2", 5353),
		make_forward(IPPROTO_TCP, "2001:db8::1", 443, "fd00::2", 8443),
	};
	static const char *const parts[] = {
		"delete table inet vmnet_forwards_00000007\n",
		"elements = { 6 . 8080 : 10.0.0.2 . 80 }",
		"elements = { 198.51.100.2 . 17 . 53 : 10.0.1.2 . 5353 }",
		"elements = { 2001:db8::1 . 6 . 443 : fd00::2 . 8443 }",
		"iifname \"vmbr1\" ip daddr 127.0.0.0/8 drop",
		"iifname \"vmbr2\" ip saddr 127.0.0.0/8 drop",
		"oifname \"vmbr1\" ct status dnat ip saddr { 127.0.0.0/8, 10.0.0.0/24 } masquerade",
		"oifname \"vmbr1\" ct status dnat ip6 saddr fd12:3456:789a:1::/64 masquerade",
		"oifname \"vmbr2\" ct status dnat masquerade",
	};
	char *text;

	give_prefix(&bridges[0]);
	text = forwards_build_commands(
		7, forwards, array_length(forwards), bridges, array_length(bridges));

	for (size_t i = 0; i < array_length(parts); i++)
		if (!strstr(text, parts[i]))
			fail_msg("%s is not in %s", parts[i], text);
	free(text);
	text = forwards_build_commands(7, NULL, 0, bridges, array_length(bridges));
	assert_string_equal(text, "add table inet vmnet_forwards_00000007\n"
				  "delete table inet vmnet_forwards_00000007\n");
	free(text);
}

/* A flow to 198.51.100.2. */
static struct forwards_flow make_flow(
	bool is_led, uint16_t port, const char *target, uint16_t target_port)
{
	struct forwards_flow flow = {.is_led = is_led, .port = port, .target_port = target_port};

	assert_int_equal(inet_pton(AF_INET, "198.51.100.2", flow.address), 1);
	assert_int_equal(inet_pton(AF_INET, target, flow.target), 1);
	return flow;
}

static void flows_end_that_would_go_elsewhere_now(void **state)
{
	const struct bridge_facts bridge =
		make_bridge("vmbr1", NETWORK_MODE_SHARED, "10.0.0.0/24", 1);
	const struct verb_forward forwards[] = {
		make_forward(IPPROTO_UDP, "", 8080, "10.0.0.2", 80),
		make_forward(IPPROTO_UDP, "198.51.100.2", 8081, "10.0.0.2", 80),
		make_forward(IPPROTO_UDP, "198.51.100.3", 8082, "10.0.0.2", 80),
		make_forward(IPPROTO_TCP, "", 8083, "10.0.0.2", 80),
		make_forward(IPPROTO_UDP, "198.51.100.2", 8080, "10.0.0.3", 80),
	};
	static const struct {
		bool is_led;
		uint16_t port;
		const char *target;
		uint16_t target_port;
		bool is_stale;
	} cases[] = {
		{true, 8081, "10.0.0.2", 80, false},
		{true, 8081, "10.0.0.2", 81, true},
		{true, 8081, "10.0.0.9", 80, true},
		/* One address goes before every address. */
		{true, 8080, "10.0.0.3", 80, false},
		{true, 8080, "10.0.0.2", 80, true},
		/* Nobody's any more. */
		{true, 9999, "10.0.0.2", 80, true},
		{true, 8082, "10.0.0.2", 80, true},
		{true, 8083, "10.0.0.2", 80, true},
		/* Somebody else's. */
		{true, 9999, "172.17.0.2", 80, false},
		/* Not led yet. */
		{false, 8080, "198.51.100.2", 8080, true},
		{false, 8082, "198.51.100.2", 8082, false},
		{false, 8083, "198.51.100.2", 8083, false},
		{false, 9999, "198.51.100.2", 9999, false},
	};
	struct forwards_flow flow;

	for (size_t i = 0; i < array_length(cases); i++) {
		flow = make_flow(
			cases[i].is_led, cases[i].port, cases[i].target, cases[i].target_port);
		if (forwards_flow_is_stale(&flow, forwards, array_length(forwards), &bridge, 1) !=
			cases[i].is_stale)
			fail_msg("case %zu", i);
	}
	/* On its way from a VM to a server outside. */
	flow = make_flow(false, 8080, "198.51.100.2", 8080);
	flow.is_masked = true;
	assert_false(forwards_flow_is_stale(&flow, forwards, array_length(forwards), &bridge, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(malformed_forwards_are_refused),
		cmocka_unit_test(a_port_is_there_once),
		cmocka_unit_test(targets_are_vms_of_ours),
		cmocka_unit_test(the_gateways_services_stay),
		cmocka_unit_test(the_table_has_every_forward_in_its_map),
		cmocka_unit_test(flows_end_that_would_go_elsewhere_now),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
