/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "wire/startline.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static struct startline make_line(void)
{
	struct startline line = {
		.network = "shared",
		.interface_name = "vmtap00000001",
		.mac = {{0x0a, 0xd6, 0x36, 0xc1, 0xea, 0xf3}},
		.mtu = 1500,
		.read_max_packets = 64,
		.write_max_packets = 32,
	};

	assert_int_equal(
		text_to_uuid("6d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b11", &line.interface_id), 0);
	assert_int_equal(text_to_ipv4_subnet("192.168.64.0/24", &line.subnet), 0);
	assert_int_equal(text_to_ipv4("192.168.64.1", &line.gateway), 0);
	assert_int_equal(text_to_ipv4("192.168.64.7", &line.address), 0);
	return line;
}

/* One line, and exactly these members. */
static void expect_line(const struct startline *line, const char *expected_text)
{
	json_t *expected = json_loads(expected_text, 0, NULL), *object;
	char *text;

	assert_non_null(expected);
	assert_int_equal(startline_to_text(line, &text), 0);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!json_equal(object, expected))
		fail_msg("%s is not %s", text, expected_text);
	json_decref(object);
	json_decref(expected);
	free(text);
}

#define COMMON                                                                                     \
	"{\"vmnet_mac_address\":\"0a:d6:36:c1:ea:f3\","                                            \
	"\"vmnet_interface_id\":\"6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11\","                         \
	"\"vmnet_max_packet_size\":1514,\"vmnet_mtu\":1500,\"vmnet_read_max_packets\":64,"         \
	"\"vmnet_write_max_packets\":32,\"vmnet_interface_name\":\"vmtap00000001\","               \
	"\"vmnet_network\":\"shared\",\"vmnet_ipv4_address\":\"192.168.64.7\","

static void the_line_without_a_named_network(void **state)
{
	struct startline line = make_line();

	expect_line(&line, COMMON "\"vmnet_start_address\":\"192.168.64.1\","
				  "\"vmnet_end_address\":\"192.168.64.254\","
				  "\"vmnet_subnet_mask\":\"255.255.255.0\"}");
	assert_int_equal(text_to_ipv4("192.168.64.99", &line.end_address), 0);
	expect_line(&line, COMMON "\"vmnet_start_address\":\"192.168.64.1\","
				  "\"vmnet_end_address\":\"192.168.64.99\","
				  "\"vmnet_subnet_mask\":\"255.255.255.0\"}");
}

static void the_line_with_a_named_network(void **state)
{
	struct startline line = make_line();

	line.network_was_named = true;
	expect_line(&line,
		COMMON "\"net_ipv4_subnet\":\"192.168.64.1\",\"net_ipv4_mask\":\"255.255.255.0\"}");
}

static void the_line_with_ipv6(void **state)
{
	static const char *const mask = "\"vmnet_start_address\":\"192.168.64.1\","
					"\"vmnet_end_address\":\"192.168.64.254\","
					"\"vmnet_subnet_mask\":\"255.255.255.0\"";
	struct startline line = make_line();
	char expected[1024];

	line.has_ipv6 = true;
	line.is_shared = true;
	assert_int_equal(inet_pton(AF_INET6, "fd2d:1b24:620:47::", &line.ipv6_prefix), 1);
	snprintf(expected, sizeof(expected),
		COMMON "%s,\"vmnet_nat66_prefix\":\"fd2d:1b24:620:47::\"}", mask);
	expect_line(&line, expected);
	line.is_shared = false;
	snprintf(expected, sizeof(expected), COMMON "%s}", mask);
	expect_line(&line, expected);
	line.network_was_named = true;
	expect_line(&line,
		COMMON "\"net_ipv4_subnet\":\"192.168.64.1\",\"net_ipv4_mask\":\"255.255.255.0\","
		       "\"net_ipv6_prefix\":\"fd2d:1b24:620:47::\",\"net_ipv6_prefix_len\":64}");
}

static void the_longest_frame_may_be_longer_than_the_mtu(void **state)
{
	struct startline line = make_line();
	json_t *object;
	char *text;

	line.max_packet_size = 65550;
	assert_int_equal(startline_to_text(&line, &text), 0);
	object = json_loads(text, 0, NULL);
	assert_int_equal(
		json_integer_value(json_object_get(object, "vmnet_max_packet_size")), 65550);
	assert_int_equal(json_integer_value(json_object_get(object, "vmnet_mtu")), 1500);
	json_decref(object);
	free(text);
}

static void text_that_is_no_utf8_is_refused(void **state)
{
	struct startline line = make_line();
	char *text;

	line.network = "\xff";
	assert_int_equal(startline_to_text(&line, &text), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_line_without_a_named_network),
		cmocka_unit_test(the_line_with_a_named_network),
		cmocka_unit_test(the_line_with_ipv6),
		cmocka_unit_test(the_longest_frame_may_be_longer_than_the_mtu),
		cmocka_unit_test(text_that_is_no_utf8_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
