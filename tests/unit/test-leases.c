/* dnsmasq's file of leases, in which VMs have a say. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/leases.h"

#include <arpa/inet.h>
#include <string.h>

static void a_line_is_a_lease(void **state)
{
	struct lease_line line;
	char mac[MAC_TEXT_SIZE];

	assert_true(lease_line_parse("1700000000 52:54:00:12:34:56 192.168.64.2 web *", &line));
	assert_int_equal(line.expires_s, 1700000000);
	mac_to_text(line.mac, mac);
	assert_string_equal(mac, "52:54:00:12:34:56");
	assert_int_equal(line.address.s_addr, inet_addr("192.168.64.2"));
	assert_string_equal(line.hostname, "web");
}

static void a_name_that_is_none_is_left_out(void **state)
{
	static const char *const names[] = {
		"*",
		"-web",
		"we_b",
		"w\033[31m",
		"caf\xc3\xa9",
		"a.b",
	};
	char text[128];
	struct lease_line line;

	for (size_t i = 0; i < array_length(names); i++) {
		snprintf(text, sizeof(text), "1 52:54:00:12:34:56 10.0.0.2 %s 01:02", names[i]);
		assert_true(lease_line_parse(text, &line));
		assert_string_equal(line.hostname, "");
	}
}

static void other_lines_are_no_leases(void **state)
{
	static const char *const texts[] = {
		"",
		"duid 00:01:00:01:2c",
		"1700000000 52:54:00:12:34:56 192.168.64.2",
		"1700000000 06-52:54:00:12:34 192.168.64.2 web *",
		"1700000000 5066563 fd00::5 web 00:01",
		"1700000000 52:54:00:12:34:56 192.168.64.999 web *",
		"x 52:54:00:12:34:56 192.168.64.2 web *",
	};
	struct lease_line line;

	for (size_t i = 0; i < array_length(texts); i++)
		assert_false(lease_line_parse(texts[i], &line));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_a_lease),
		cmocka_unit_test(a_name_that_is_none_is_left_out),
		cmocka_unit_test(other_lines_are_no_leases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
