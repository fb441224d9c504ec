/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/adhoc.h"

#include <string.h>

static void test_names_and_back(void **state)
{
	static const char *const names[] = {
		"shared-192.168.200.1-24-254",
		"host-10.0.0.1-8-16777214",
		"shared-192.168.200.253-30-2",
		"shared-172.16.200.10-24-20",
		/* The longest of each range. */
		"shared-10.255.255.253-8-16777214",
		"shared-172.31.255.253-12-1048574",
		"shared-192.168.255.253-16-65534",
	};

	for (size_t i = 0; i < array_length(names); i++) {
		struct network_settings settings;
		struct address_layout layout;
		char name[NETWORK_NAME_SIZE];

		assert_true(network_name_is_valid(names[i]));
		assert_true(adhoc_read_name(names[i], &settings));
		assert_true(settings.has_subnet);
		layout = (struct address_layout){
			settings.subnet, settings.gateway_offset, settings.last_offset};
		adhoc_make_name(settings.mode, &layout, name);
		assert_string_equal(name, names[i]);
	}
}

static void test_a_name_says_all(void **state)
{
	struct network_settings settings;
	char subnet[SUBNET_TEXT_SIZE];

	assert_true(adhoc_read_name("host-192.168.7.10-24-99", &settings));
	ipv4_subnet_to_text(settings.subnet, subnet);
	assert_string_equal(subnet, "192.168.7.0/24");
	assert_int_equal(settings.mode, NETWORK_MODE_HOST);
	assert_int_equal(settings.gateway_offset, 10);
	assert_int_equal(settings.last_offset, 99);
	assert_int_equal(settings.mtu, SETTINGS_MTU_DEFAULT);
	assert_true(settings.dhcp);
}

static void test_other_names_are_none(void **state)
{
	static const char *const names[] = {
		"",
		"shared",
		"shared-",
		"shared-192.168.200.1",
		"shared-192.168.200.1-24",
		"shared-192.168.200.1-24-254-1",
		"shared-192.168.200.1-24-255",
		"shared-192.168.200.1-24-1",
		"shared-192.168.200.0-24-254",
		"shared-192.168.200.1-31-1",
		"shared-192.168.200.1-7-9",
		"shared-192.168.200.1-024-254",
		"shared-192.168.200.1-24-0254",
		"shared-192.168.200.1-24-4294967295",
		"shared-203.0.113.1-24-254",
		"bridged-192.168.200.1-24-254",
		"Shared-192.168.200.1-24-254",
		"shared-192.168.200.1-24-254 ",
	};
	struct network_settings settings;

	for (size_t i = 0; i < array_length(names); i++)
		if (adhoc_read_name(names[i], &settings))
			fail_msg("\"%s\" stands for a network", names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_back),
		cmocka_unit_test(test_a_name_says_all),
		cmocka_unit_test(test_other_names_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
