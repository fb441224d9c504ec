/* The text of the guard's table: what is in it for which links. That the rules hold is for the
 * tests with a kernel. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "priv/guard.h"

#include <arpa/inet.h>
#include <string.h>

#define INSTANCE 0xc0ffeeu
#define TABLE    "vmnet_guard_00c0ffee"
#define BRIDGE   "vmbr9e246ed4" /* of "blue" */

static const struct bridge_facts blue = {
	.network = "blue",
	.name = BRIDGE,
	.subnet = {{0x0040a8c0}, 24}, /* 192.168.64.0 */
	.gateway_offset = 1,
};

static struct tap_facts tap_of(const char *network, bool isolated, bool locked)
{
	struct tap_facts tap = {
		.name = "vmtap00000abc",
		.port.isolated = isolated,
		.port.locked = locked,
		.port.mac = {{0x52, 0x54, 0, 0, 0, 1}},
		.port.address = {htonl(0xc0a84005)},
	};

	assert_int_equal(text_copy(tap.network, sizeof(tap.network), network), 0);
	return tap;
}

static char *build_whole(const struct tap_facts *taps, size_t taps_count)
{
	return guard_build_commands(
		&(const struct guard_facts){INSTANCE, &blue, 1, taps, taps_count});
}

static void without_links_there_is_no_table(void **state)
{
	cleanup_free char *text = guard_build_commands(&(const struct guard_facts){INSTANCE});

	assert_string_equal(text, "add table bridge " TABLE "\n"
				  "delete table bridge " TABLE "\n");
}

static void a_gateway_is_nobody_elses(void **state)
{
	cleanup_free char *text = build_whole(NULL, 0);

	assert_non_null(strstr(text, "delete table bridge " TABLE "\ntable bridge " TABLE " {\n"));
	assert_non_null(strstr(text, "add element bridge " TABLE " gateways { 192.168.64.1 }\n"));
	assert_non_null(strstr(
		text, "add element bridge " TABLE " gateways6 { fe80::fc77:9eff:fe24:6ed4 }\n"));
	assert_non_null(strstr(text, "@th,64,128 0xfe80000000000000fc779efffe246ed4 drop\n"));
	assert_non_null(strstr(text, "locked_" BRIDGE " ip6 saddr != { ::, fe80::/10 } drop\n"));
	assert_non_null(strstr(text, "ip daddr 192.168.64.0/24 ip daddr != 192.168.64.1 drop\n"));
	assert_null(strstr(text, "ip6 daddr"));
}

static void ipv6_has_its_prefix(void **state)
{
	struct bridge_facts bridge = blue;
	const struct guard_facts facts = {INSTANCE, &bridge, 1, NULL, 0};
	cleanup_free char *text = NULL;

	bridge.has_ipv6 = true;
	memcpy(bridge.ipv6_prefix, "\xfd\1\2\3\4\5\6\7", sizeof(bridge.ipv6_prefix));
	text = guard_build_additions(&facts);
	assert_non_null(strstr(text, "gateways6 { fd01:203:405:607::1 }\n"));
	assert_non_null(strstr(text, "{ ::, fe80::/10, fd01:203:405:607::/64 } drop\n"));
	assert_non_null(strstr(
		text, "ip6 daddr fd01:203:405:607::/64 ip6 daddr != fd01:203:405:607::1 drop\n"));
}

static void a_port_has_the_elements_that_it_needs(void **state)
{
	static const char locked[] =
		"add element bridge " TABLE " macs { \"vmtap00000abc\" . 52:54:00:00:00:01 }\n"
		"add element bridge " TABLE " clients { \"vmtap00000abc\" . 0x525400000001 }\n"
		"add element bridge " TABLE " addresses"
		" { \"vmtap00000abc\" . 52:54:00:00:00:01 . 192.168.64.5 }\n"
		"add element bridge " TABLE
		" locked_ports { \"vmtap00000abc\" : goto locked_" BRIDGE " }\n";
	static const char isolated[] =
		"add element bridge " TABLE
		" isolated_ports { \"vmtap00000abc\" : jump isolated_" BRIDGE " }\n";

	for (int kind = 0; kind < 4; kind++) {
		struct tap_facts tap = tap_of("blue", kind & 1, kind & 2);
		cleanup_free char *text = guard_build_additions(
			&(const struct guard_facts){INSTANCE, NULL, 0, &tap, 1});
		cleanup_free char *whole = build_whole(&tap, 1);
		char expected[1024];

		snprintf(expected, sizeof(expected), "%s%s", kind & 1 ? isolated : "",
			kind & 2 ? locked : "");
		assert_string_equal(text, expected);
		assert_non_null(strstr(whole, expected));
	}
}

static void a_tap_without_its_bridge_is_left_out_of_the_whole(void **state)
{
	struct tap_facts tap = tap_of("gone", true, true);
	cleanup_free char *text = build_whole(&tap, 1);

	assert_null(strstr(text, "vmtap00000abc"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_links_there_is_no_table),
		cmocka_unit_test(a_gateway_is_nobody_elses),
		cmocka_unit_test(ipv6_has_its_prefix),
		cmocka_unit_test(a_port_has_the_elements_that_it_needs),
		cmocka_unit_test(a_tap_without_its_bridge_is_left_out_of_the_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
