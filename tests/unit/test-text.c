/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static void numbers_are_decimal_and_within_bounds(void **state)
{
	static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x1", "1.0", "9", "21",
		"4294967297", "18446744073709551626"};
	uint32_t value = 77;

	for (size_t i = 0; i < array_length(bad); i++)
		assert_int_equal(text_to_uint32(bad[i], 10, 20, &value), -EINVAL);
	assert_int_equal(value, 77);
	assert_int_equal(text_to_uint32("10", 10, 20, &value), 0);
	assert_int_equal(value, 10);
	assert_int_equal(text_to_uint32("20", 10, 20, &value), 0);
	assert_int_equal(value, 20);
	assert_int_equal(text_to_uint32("4294967295", 0, UINT32_MAX, &value), 0);
	assert_int_equal(value, UINT32_MAX);
	assert_int_equal(text_to_uint32("4294967296", 0, UINT32_MAX, &value), -EINVAL);
	assert_int_equal(text_to_uint32("0", 0, 0, &value), 0);
	assert_int_equal(value, 0);
}

static void addresses_are_dotted_quads(void **state)
{
	static const char *const bad[] = {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", " 1.2.3.4",
		"1.2.3.4 ", "01.2.3.4", "0x1.2.3.4", "::1"};
	struct in_addr address = {.s_addr = 77};

	for (size_t i = 0; i < array_length(bad); i++)
		assert_int_equal(text_to_ipv4(bad[i], &address), -EINVAL);
	assert_int_equal(address.s_addr, 77);
	assert_int_equal(text_to_ipv4("192.168.64.1", &address), 0);
	assert_int_equal(ntohl(address.s_addr), 0xc0a84001);
}

static void subnets_have_no_host_bits(void **state)
{
	static const char *const bad[] = {"", "/24", "192.168.64.0", "192.168.64.0/",
		"192.168.64.0/7", "192.168.64.0/31", "192.168.64.1/24", "192.168.64.0/24/24",
		"192.168.64.0/ 24", "10.0.0.0/4294967304", "1111.1111.1111.1111/24"};
	struct ipv4_subnet subnet = {.prefix_length = 77};

	for (size_t i = 0; i < array_length(bad); i++)
		assert_int_equal(text_to_ipv4_subnet(bad[i], &subnet), -EINVAL);
	assert_int_equal(subnet.prefix_length, 77);
	assert_int_equal(text_to_ipv4_subnet("10.0.0.0/8", &subnet), 0);
	assert_int_equal(ntohl(subnet.address.s_addr), 0x0a000000);
	assert_int_equal(subnet.prefix_length, 8);
	assert_int_equal(text_to_ipv4_subnet("172.16.200.252/30", &subnet), 0);
	assert_int_equal(subnet.prefix_length, 30);
}

static void addresses_are_written_as_they_are_read(void **state)
{
	static const char *const texts[] = {
		"0.0.0.0", "10.0.9.99", "100.109.110.200", "192.168.64.1", "255.255.255.255"};
	struct in_addr address;
	char back[INET_ADDRSTRLEN];

	for (size_t i = 0; i < array_length(texts); i++) {
		assert_int_equal(text_to_ipv4(texts[i], &address), 0);
		ipv4_to_text(address, back);
		assert_string_equal(back, texts[i]);
	}
}

static void expect_subnet(const char *text, const char *mask, const char *last, uint32_t size)
{
	struct ipv4_subnet subnet;
	char back[SUBNET_TEXT_SIZE];
	char address[INET_ADDRSTRLEN];
	struct in_addr value;

	assert_int_equal(text_to_ipv4_subnet(text, &subnet), 0);
	ipv4_subnet_to_text(subnet, back);
	assert_string_equal(back, text);
	value = ipv4_subnet_mask(subnet);
	assert_string_equal(inet_ntop(AF_INET, &value, address, sizeof(address)), mask);
	assert_int_equal(ipv4_subnet_size(subnet), size);
	value = ipv4_subnet_host(subnet, size - 1);
	assert_string_equal(inet_ntop(AF_INET, &value, address, sizeof(address)), last);
	assert_true(ipv4_subnet_contains(subnet, subnet.address));
	assert_true(ipv4_subnet_contains(subnet, value));
	assert_false(ipv4_subnet_contains(subnet, ipv4_subnet_host(subnet, size)));
	assert_false(ipv4_subnet_contains(subnet, ipv4_subnet_host(subnet, UINT32_MAX)));
}

static void subnets_are_calculated(void **state)
{
	expect_subnet("10.0.0.0/8", "255.0.0.0", "10.255.255.255", 1u << 24);
	expect_subnet("192.168.64.0/24", "255.255.255.0", "192.168.64.255", 256);
	expect_subnet("255.255.255.252/30", "255.255.255.252", "255.255.255.255", 4);
	expect_subnet("123.123.128.0/17", "255.255.128.0", "123.123.255.255", 1u << 15);
}

static bool overlap(const char *a_text, const char *b_text)
{
	struct ipv4_subnet a, b;

	assert_int_equal(text_to_ipv4_subnet(a_text, &a), 0);
	assert_int_equal(text_to_ipv4_subnet(b_text, &b), 0);
	assert_int_equal(ipv4_subnets_overlap(a, b), ipv4_subnets_overlap(b, a));
	return ipv4_subnets_overlap(a, b);
}

static void overlaps_are_found_both_ways(void **state)
{
	struct ipv4_subnet everything = {0}, some;

	assert_true(overlap("10.0.0.0/8", "10.200.0.0/24"));
	assert_true(overlap("10.0.0.0/24", "10.0.0.0/24"));
	assert_false(overlap("10.0.0.0/24", "10.0.1.0/24"));
	assert_false(overlap("10.0.0.0/25", "10.0.0.128/25"));
	assert_false(overlap("10.0.0.0/8", "11.0.0.0/30"));
	/* The default route has no prefix at all. */
	assert_int_equal(text_to_ipv4_subnet("10.0.0.0/8", &some), 0);
	assert_true(ipv4_subnets_overlap(everything, some));
	assert_int_equal(ipv4_subnet_mask(everything).s_addr, 0);
}

static void macs_are_six_pairs(void **state)
{
	static const char *const bad[] = {"", "52:54:00:12:34", "52:54:00:12:34:5",
		"52:54:00:12:34:567", "52-54-00-12-34-56", "52:54:00:12:34:5g", "g2:54:00:12:34:56",
		" 52:54:00:12:34:5", "525400123456xxxxx", "52:54:00:12:34:56 "};
	struct mac mac = {{7}};
	char text[MAC_TEXT_SIZE];

	for (size_t i = 0; i < array_length(bad); i++)
		assert_int_equal(text_to_mac(bad[i], &mac), -EINVAL);
	assert_int_equal(mac.bytes[0], 7);
	assert_int_equal(text_to_mac("52:54:00:AB:cd:0f", &mac), 0);
	assert_memory_equal(mac.bytes, "\x52\x54\x00\xab\xcd\x0f", MAC_SIZE);
	mac_to_text(mac, text);
	assert_string_equal(text, "52:54:00:ab:cd:0f");
}

static void multicast_and_zero_are_no_unicast(void **state)
{
	assert_true(mac_is_unicast((struct mac){{2, 0, 0, 0, 0, 1}}));
	assert_true(mac_is_unicast((struct mac){{0, 0, 0, 0, 0, 1}}));
	assert_false(mac_is_unicast((struct mac){{0}}));
	assert_false(mac_is_unicast((struct mac){{1, 0, 0x5e, 0, 0, 1}}));
	assert_false(mac_is_unicast((struct mac){{255, 255, 255, 255, 255, 255}}));
}

static void uuids_have_their_dashes(void **state)
{
	static const char *const bad[] = {"", "6d6b1f5c40fc4d10a8a56f7d2c0e9b11",
		"6d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b1", "6d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b111",
		"6d6b1f5c_40fc-4d10-a8a5-6f7d2c0e9b11", "6d6b1f5c-40fc-4d10-a8a56-f7d2c0e9b11",
		"6d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b1x", "{d6b1f5c-40fc-4d10-a8a5-6f7d2c0e9b11"};
	struct uuid uuid = {{7}};
	char text[UUID_TEXT_SIZE];

	for (size_t i = 0; i < array_length(bad); i++)
		assert_int_equal(text_to_uuid(bad[i], &uuid), -EINVAL);
	assert_int_equal(uuid.bytes[0], 7);
	assert_int_equal(text_to_uuid("6d6b1f5c-40FC-4d10-a8a5-6f7d2c0e9b11", &uuid), 0);
	assert_memory_equal(uuid.bytes,
		"\x6d\x6b\x1f\x5c\x40\xfc\x4d\x10\xa8\xa5\x6f\x7d\x2c\x0e\x9b\x11", UUID_SIZE);
	uuid_to_text(uuid, text);
	assert_string_equal(text, "6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11");
}

static void network_names_are_safe_everywhere(void **state)
{
	static const char *const good[] = {
		"a", "0", "shared", "a_b.c-d", "12345678901234567890123456789012"};
	static const char *const bad[] = {"", ".", "..", "-a", "_a", "a b", "a/b", "a\n", "a\"",
		"\xe9t\xe9", "a\xe9", "a:", "123456789012345678901234567890123"};

	for (size_t i = 0; i < array_length(good); i++)
		assert_true(network_name_is_valid(good[i]));
	for (size_t i = 0; i < array_length(bad); i++)
		assert_false(network_name_is_valid(bad[i]));
}

static void hostnames_are_dns_labels(void **state)
{
	static const char longest[] =
		"a23456789012345678901234567890123456789012345678901234567890123";
	static const char longer[] =
		"a234567890123456789012345678901234567890123456789012345678901234";
	static const char *const bad[] = {"", "-a", "a-", "a.b", "a_b", "a b", "\xe9",
		"a\xe9"
		"b",
		longer};

	assert_int_equal(strlen(longest), 63);
	assert_true(hostname_is_valid(longest));
	assert_true(hostname_is_valid("a"));
	assert_true(hostname_is_valid("Web-1"));
	assert_true(hostname_is_valid("1"));
	for (size_t i = 0; i < array_length(bad); i++)
		assert_false(hostname_is_valid(bad[i]));
}

static void text_is_copied_whole_or_not_at_all(void **state)
{
	char text[4] = "xxx";

	assert_int_equal(text_copy(text, sizeof(text), "abcd"), -ENAMETOOLONG);
	assert_string_equal(text, "xxx");
	assert_int_equal(text_copy(text, sizeof(text), "abc"), 0);
	assert_string_equal(text, "abc");
	assert_int_equal(text_copy(text, sizeof(text), ""), 0);
	assert_string_equal(text, "");
	assert_int_equal(text_copy(text, 0, ""), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_decimal_and_within_bounds),
		cmocka_unit_test(addresses_are_dotted_quads),
		cmocka_unit_test(subnets_have_no_host_bits),
		cmocka_unit_test(addresses_are_written_as_they_are_read),
		cmocka_unit_test(subnets_are_calculated),
		cmocka_unit_test(overlaps_are_found_both_ways),
		cmocka_unit_test(macs_are_six_pairs),
		cmocka_unit_test(multicast_and_zero_are_no_unicast),
		cmocka_unit_test(uuids_have_their_dashes),
		cmocka_unit_test(network_names_are_safe_everywhere),
		cmocka_unit_test(hostnames_are_dns_labels),
		cmocka_unit_test(text_is_copied_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
