/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/address-range.h"
#include "base/cleanup.h"

#include <string.h>

static const char *resolve(
	const char *start, const char *end, const char *mask, struct address_layout *ret_layout)
{
	struct address_range range;

	assert_int_equal(text_to_ipv4(start, &range.start), 0);
	assert_int_equal(text_to_ipv4(end, &range.end), 0);
	assert_int_equal(text_to_ipv4(mask, &range.mask), 0);
	return address_range_resolve(&range, ret_layout);
}

static void test_ranges(void **state)
{
	static const struct {
		const char *start, *end, *mask, *subnet;
		uint32_t gateway_offset, last_offset;
	} ranges[] = {
		{"192.168.200.1", "192.168.200.254", "255.255.255.0", "192.168.200.0/24", 1, 254},
		{"10.200.0.1", "10.200.0.254", "255.255.255.0", "10.200.0.0/24", 1, 254},
		{"172.16.200.10", "172.16.200.20", "255.255.255.0", "172.16.200.0/24", 10, 20},
		{"192.168.200.1", "192.168.200.2", "255.255.255.252", "192.168.200.0/30", 1, 2},
		{"192.168.200.253", "192.168.200.254", "255.255.255.252", "192.168.200.252/30", 1,
			2},
		{"10.0.0.1", "10.255.255.254", "255.0.0.0", "10.0.0.0/8", 1, 16777214},
	};

	for (size_t i = 0; i < array_length(ranges); i++) {
		struct address_layout layout;
		char subnet[SUBNET_TEXT_SIZE];

		assert_null(resolve(ranges[i].start, ranges[i].end, ranges[i].mask, &layout));
		ipv4_subnet_to_text(layout.subnet, subnet);
		assert_string_equal(subnet, ranges[i].subnet);
		assert_int_equal(layout.gateway_offset, ranges[i].gateway_offset);
		assert_int_equal(layout.last_offset, ranges[i].last_offset);
	}
}

static void test_refusals(void **state)
{
	static const struct {
		const char *start, *end, *mask, *said;
	} refusals[] = {
		{"192.168.200.1", "192.168.200.9", "255.255.0.255", "mask"},
		{"192.168.200.1", "192.168.200.9", "255.255.255.254", "mask"},
		{"192.168.200.1", "192.168.200.9", "254.0.0.0", "mask"},
		{"192.168.200.1", "192.168.200.9", "0.0.0.0", "mask"},
		{"192.168.200.1", "192.168.201.9", "255.255.255.0", "one subnet"},
		{"203.0.113.1", "203.0.113.9", "255.255.255.0", "private"},
		{"172.32.0.1", "172.32.0.9", "255.255.255.0", "private"},
		{"192.168.0.1", "192.169.0.9", "255.254.0.0", "private"},
		{"192.168.200.0", "192.168.200.9", "255.255.255.0", "no hosts' addresses"},
		{"192.168.200.1", "192.168.200.255", "255.255.255.0", "no hosts' addresses"},
		{"192.168.200.9", "192.168.200.1", "255.255.255.0", "higher"},
		{"192.168.200.9", "192.168.200.9", "255.255.255.0", "higher"},
	};

	for (size_t i = 0; i < array_length(refusals); i++) {
		struct address_layout layout = {.last_offset = 77};
		const char *wrong =
			resolve(refusals[i].start, refusals[i].end, refusals[i].mask, &layout);

		assert_non_null(wrong);
		assert_non_null(strstr(wrong, refusals[i].said));
		assert_int_equal(layout.last_offset, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
