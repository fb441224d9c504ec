/* Which subnet a network gets, and which address a MAC in it. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "broker/reservations.h"
#include "broker/subnet.h"

#include <errno.h>
#include <string.h>

static struct ipv4_subnet subnet_of(const char *text)
{
	struct ipv4_subnet subnet;

	assert_int_equal(text_to_ipv4_subnet(text, &subnet), 0);
	return subnet;
}

/* Unlike the parser, for what the host may have: any prefix length. */
static struct ipv4_subnet use_of(const char *address, uint8_t prefix_length)
{
	struct ipv4_subnet subnet = {.prefix_length = prefix_length};

	assert_int_equal(text_to_ipv4(address, &subnet.address), 0);
	return subnet;
}

static void assert_chosen(const struct subnet_uses *uses, const char *expected)
{
	char text[SUBNET_TEXT_SIZE];
	struct ipv4_subnet chosen;

	assert_int_equal(subnet_choose(uses, &chosen), 0);
	ipv4_subnet_to_text(chosen, text);
	assert_string_equal(text, expected);
}

static void candidates_come_in_the_documented_order(void **state)
{
	static const struct {
		size_t index;
		const char *subnet;
	} cases[] = {
		{0, "192.168.64.0/24"},
		{1, "192.168.128.0/24"},
		{2, "192.168.65.0/24"},
		{64, "192.168.127.0/24"},
		{65, "192.168.129.0/24"},
		{190, "192.168.254.0/24"},
		{191, "10.64.64.0/24"},
		{381, "10.254.64.0/24"},
		{382, "172.16.64.0/24"},
		{397, "172.31.64.0/24"},
	};
	struct ipv4_subnet candidate;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[SUBNET_TEXT_SIZE];

		assert_true(subnet_get_candidate(cases[i].index, &candidate));
		ipv4_subnet_to_text(candidate, text);
		assert_string_equal(text, cases[i].subnet);
	}
	assert_false(subnet_get_candidate(398, &candidate));
}

static void candidates_do_not_overlap(void **state)
{
	struct ipv4_subnet a, b;

	for (size_t i = 0; subnet_get_candidate(i, &a); i++)
		for (size_t j = 0; j < i && subnet_get_candidate(j, &b); j++)
			assert_false(ipv4_subnets_overlap(a, b));
}

static void a_free_host_gets_the_known_subnet(void **state)
{
	struct subnet_uses none = {0};

	assert_chosen(&none, "192.168.64.0/24");
}

static void taken_candidates_are_passed_over(void **state)
{
	struct subnet_uses uses = {0};

	subnet_uses_add(&uses, use_of("192.168.64.7", 32), "address");
	assert_chosen(&uses, "192.168.128.0/24");
	subnet_uses_add(&uses, use_of("192.168.128.0", 17), "route");
	assert_chosen(&uses, "192.168.65.0/24");
	subnet_uses_add(&uses, use_of("192.168.0.0", 16), "route");
	assert_chosen(&uses, "10.64.64.0/24");
	subnet_uses_add(&uses, use_of("10.0.0.0", 8), "route");
	assert_chosen(&uses, "172.16.64.0/24");
	subnet_uses_done(&uses);
	assert_chosen(&uses, "192.168.64.0/24");
}

static void a_full_host_has_no_subnet(void **state)
{
	struct subnet_uses uses = {0};
	struct ipv4_subnet chosen;

	subnet_uses_add(&uses, use_of("192.168.0.0", 16), "route");
	subnet_uses_add(&uses, use_of("10.0.0.0", 8), "route");
	subnet_uses_add(&uses, use_of("172.16.0.0", 12), "route");
	assert_int_equal(subnet_choose(&uses, &chosen), -EADDRNOTAVAIL);
	subnet_uses_done(&uses);
}

static void default_routes_take_nothing(void **state)
{
	struct subnet_uses uses = {0};

	subnet_uses_add(&uses, use_of("0.0.0.0", 0), "default");
	subnet_uses_add(&uses, use_of("128.0.0.0", 1), "VPN");
	assert_chosen(&uses, "192.168.64.0/24");
	subnet_uses_done(&uses);
}

static void the_owner_of_a_taken_subnet_is_found(void **state)
{
	struct subnet_uses uses = {0};
	const struct subnet_use *use;

	subnet_uses_add(&uses, subnet_of("10.1.0.0/16"), "route %s of %s", "10.1.0.0/16", "eth0");
	subnet_uses_add(&uses, subnet_of("10.1.2.0/24"), "another");
	use = subnet_find_use(&uses, subnet_of("10.1.2.0/24"));
	assert_non_null(use);
	assert_string_equal(use->owner, "route 10.1.0.0/16 of eth0");
	assert_null(subnet_find_use(&uses, subnet_of("10.2.0.0/24")));
	/* The wider one is taken, too. */
	assert_non_null(subnet_find_use(&uses, subnet_of("10.0.0.0/8")));
	subnet_uses_done(&uses);
}

static struct mac mac_of(uint8_t last)
{
	return (struct mac){{2, 0, 0, 0, 0, last}};
}

/* Bit number N of *context: the MAC ending in N is live. */
static bool is_live(void *context, struct mac mac)
{
	return (*(const uint32_t *)context >> mac.bytes[5]) & 1;
}

static uint32_t take(
	struct reservations *reservations, uint8_t last, uint32_t live, int expected_result)
{
	uint32_t offset = 0;

	assert_int_equal(
		reservations_take(reservations, mac_of(last), 2, 4, is_live, &live, &offset),
		expected_result);
	return offset;
}

static void a_mac_keeps_its_address(void **state)
{
	struct reservations reservations = {0};

	assert_int_equal(take(&reservations, 1, 0, 1), 2);
	assert_int_equal(take(&reservations, 1, 0, 0), 2);
	assert_int_equal(take(&reservations, 2, 0, 1), 3);
	/* The order of use is new, the address is not. */
	assert_int_equal(take(&reservations, 1, 0, 1), 2);
	assert_int_equal(reservations.count, 2);
	reservations_done(&reservations);
}

static void the_longest_unused_address_is_given_anew(void **state)
{
	struct reservations reservations = {0};

	take(&reservations, 1, 0, 1);
	take(&reservations, 2, 0, 1);
	take(&reservations, 3, 0, 1);
	take(&reservations, 1, 0, 1);
	assert_int_equal(take(&reservations, 4, 0, 1), 3);
	assert_int_equal(reservations.count, 3);
	/* MAC 2 has lost its place, and takes that of MAC 3. */
	assert_int_equal(take(&reservations, 2, 0, 1), 4);
	reservations_done(&reservations);
}

static void live_addresses_are_never_given_away(void **state)
{
	struct reservations reservations = {0};

	take(&reservations, 1, 0, 1);
	take(&reservations, 2, 0, 1);
	take(&reservations, 3, 0, 1);
	assert_int_equal(take(&reservations, 4, 1 << 1 | 1 << 2, 1), 4);
	take(&reservations, 5, 1 << 1 | 1 << 2 | 1 << 4, -ENOSPC);
	assert_int_equal(reservations.count, 3);
	assert_int_equal(take(&reservations, 1, 1 << 1 | 1 << 2 | 1 << 4, 1), 2);
	reservations_done(&reservations);
}

static void an_empty_pool_has_no_address(void **state)
{
	struct reservations reservations = {0};
	uint32_t live = 0, offset;

	assert_int_equal(reservations_take(&reservations, mac_of(1), 5, 4, is_live, &live, &offset),
		-ENOSPC);
}

static void a_large_subnet_is_not_remembered_without_limit(void **state)
{
	struct reservations reservations = {0};
	uint32_t live = 0, offset = 0;

	for (uint32_t i = 0; i < RESERVATIONS_MAX + 10; i++) {
		struct mac mac = {{2, 0, 0, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};

		assert_int_equal(
			reservations_take(&reservations, mac, 2, 1 << 23, is_live, &live, &offset),
			1);
		assert_in_range(offset, 2, RESERVATIONS_MAX + 1);
	}
	assert_int_equal(reservations.count, RESERVATIONS_MAX);
	reservations_done(&reservations);
}

static void impossible_entries_are_not_loaded(void **state)
{
	struct reservations reservations = {0};

	assert_int_equal(reservations_add(&reservations, mac_of(1), 2), 0);
	assert_int_equal(reservations_add(&reservations, mac_of(1), 3), -EINVAL);
	assert_int_equal(reservations_add(&reservations, mac_of(2), 2), -EINVAL);
	assert_int_equal(reservations_add(&reservations, (struct mac){{1}}, 3), -EINVAL);
	assert_int_equal(reservations_add(&reservations, mac_of(2), 9), 0);
	reservations_limit(&reservations, 2, 8);
	assert_int_equal(reservations.count, 1);
	assert_int_equal(reservations.entries[0].offset, 2);
	reservations_done(&reservations);
}

static void an_offset_is_made_a_macs(void **state)
{
	struct reservations reservations = {0};
	const struct mac a = {{2, 0, 0, 0, 0, 1}}, b = {{2, 0, 0, 0, 0, 2}};

	assert_int_equal(reservations_set(&reservations, a, 5), 1);
	assert_int_equal(reservations_set(&reservations, a, 5), 0);
	assert_int_equal(reservations_set(&reservations, b, 6), 1);
	assert_int_equal(reservations_set(&reservations, a, 6), 1);
	assert_int_equal(reservations.count, 1);
	assert_memory_equal(&reservations.entries[0].mac, &a, sizeof(a));
	assert_int_equal(reservations.entries[0].offset, 6);
	reservations_done(&reservations);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(candidates_come_in_the_documented_order),
		cmocka_unit_test(candidates_do_not_overlap),
		cmocka_unit_test(a_free_host_gets_the_known_subnet),
		cmocka_unit_test(taken_candidates_are_passed_over),
		cmocka_unit_test(a_full_host_has_no_subnet),
		cmocka_unit_test(default_routes_take_nothing),
		cmocka_unit_test(the_owner_of_a_taken_subnet_is_found),
		cmocka_unit_test(a_mac_keeps_its_address),
		cmocka_unit_test(the_longest_unused_address_is_given_anew),
		cmocka_unit_test(live_addresses_are_never_given_away),
		cmocka_unit_test(an_empty_pool_has_no_address),
		cmocka_unit_test(a_large_subnet_is_not_remembered_without_limit),
		cmocka_unit_test(impossible_entries_are_not_loaded),
		cmocka_unit_test(an_offset_is_made_a_macs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
