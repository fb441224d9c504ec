/* Quotas, each at its limit and one past it. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "broker/policy.h"

#include <errno.h>
#include <string.h>

#define USER 1000

static void connections_have_limits(void **state)
{
	static const struct {
		uid_t uid;
		size_t peers, peers_of_user;
		int expected;
		const char *text;
	} cases[] = {
		{USER, 0, 0, 0, NULL},
		{USER, 511, 63, 0, NULL},
		{USER, 511, 64, -ECANCELED, "user 1000 has 64 connections"},
		{0, 511, 511, 0, NULL},
		{USER, 512, 0, -ECANCELED, "serves 512 connections"},
		{0, 512, 0, -ECANCELED, "serves 512 connections"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct failure failure = {.error = BROKER_ERROR_COUNT};

		assert_int_equal(policy_check_peer(cases[i].uid, cases[i].peers,
					 cases[i].peers_of_user, &failure),
			cases[i].expected);
		if (!cases[i].text) {
			assert_int_equal(failure.error, BROKER_ERROR_COUNT);
			continue;
		}
		assert_int_equal(failure.error, BROKER_ERROR_QUOTA_EXCEEDED);
		assert_non_null(strstr(failure.reason, cases[i].text));
	}
}

static void what_a_user_has_has_a_limit(void **state)
{
	struct failure failure;

	assert_int_equal(policy_check_quota(USER, &policy_interfaces, 511, 1, NULL, &failure), 0);
	assert_int_equal(
		policy_check_quota(USER, &policy_interfaces, 512, 1, NULL, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_QUOTA_EXCEEDED);
	assert_string_equal(failure.reason,
		"user 1000 has 512 interfaces already, the limit of a user is 512; stop some VMs");
	assert_int_equal(policy_check_quota(0, &policy_interfaces, 100000, 1, NULL, &failure), 0);
	assert_int_equal(policy_check_quota(USER, &policy_queues, 1016, 8, NULL, &failure), 0);
	assert_int_equal(
		policy_check_quota(USER, &policy_queues, 1017, 8, NULL, &failure), -ECANCELED);
	assert_string_equal(failure.reason,
		"user 1000 has 1017 queues already and asks for 8, the limit of a user is 1024; "
		"stop some VMs, or give this one fewer queues");
}

static void a_rule_of_a_network_comes_before_the_limit(void **state)
{
	static const struct policy_rule more = {"networks.json", "lab", 600};
	static const struct policy_rule none = {"networks.json", "lab", 0};
	struct failure failure;

	assert_int_equal(policy_check_quota(USER, &policy_interfaces, 599, 1, &more, &failure), 0);
	assert_int_equal(
		policy_check_quota(USER, &policy_interfaces, 0, 1, &none, &failure), -ECANCELED);
	assert_string_equal(failure.reason,
		"user 1000 has 0 interfaces on network \"lab\" already, and networks.json: "
		"lab.quotas.interfaces is 0; stop some VMs");
	assert_int_equal(policy_check_quota(0, &policy_interfaces, 0, 1, &none, &failure), 0);
}

static void a_connection_holds_eight_networks(void **state)
{
	struct failure failure;

	assert_int_equal(policy_check_hold("blue", 7, &failure), 0);
	assert_int_equal(policy_check_hold("blue", 8, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_QUOTA_EXCEEDED);
	assert_non_null(strstr(failure.reason, "holds 8 networks already"));
	assert_non_null(strstr(failure.reason, "\"blue\""));
}

static void only_some_macs_may_be_declared(void **state)
{
	static const struct {
		struct mac mac;
		int expected;
	} cases[] = {
		{{{0x52, 0x54, 0, 1, 2, 3}}, 0},
		{{{0x02, 0, 0, 0, 0, 0}}, 0},
		{{{0xfe, 0x75, 0, 0, 0, 1}}, 0},
		{{{0xfe, 0x76, 0, 0, 0, 1}}, -ECANCELED},
		{{{0xfe, 0x77, 0, 0, 0, 1}}, -ECANCELED},
		{{{0, 0, 0, 0, 0, 0}}, -ECANCELED},
		{{{0x01, 0, 0x5e, 0, 0, 1}}, -ECANCELED},
		{{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, -ECANCELED},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[MAC_TEXT_SIZE];
		struct failure failure;

		assert_int_equal(policy_check_mac(cases[i].mac, &failure), cases[i].expected);
		if (!cases[i].expected)
			continue;
		mac_to_text(cases[i].mac, text);
		assert_int_equal(failure.error, BROKER_ERROR_INVALID_REQUEST);
		assert_non_null(strstr(failure.reason, text));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connections_have_limits),
		cmocka_unit_test(what_a_user_has_has_a_limit),
		cmocka_unit_test(a_rule_of_a_network_comes_before_the_limit),
		cmocka_unit_test(a_connection_holds_eight_networks),
		cmocka_unit_test(only_some_macs_may_be_declared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
