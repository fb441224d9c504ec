/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/interface-options.h"

#include <errno.h>
#include <string.h>

#define WORDS_MAX 12

static struct interface_options options;
static char error[OPTIONS_ERROR_SIZE];

static int parse(const char *const *words)
{
	static const struct option_entry table[] = {
		{.more = interface_option_table, .more_count = INTERFACE_OPTIONS_COUNT},
	};
	char *argv[WORDS_MAX + 2] = {(char *)"program"};
	int argc = 1, first, result;

	for (; *words; words++)
		argv[argc++] = (char *)*words;
	options = (struct interface_options){0};
	error[0] = '\0';
	result = options_parse(table, array_length(table), argc, argv, &options, error, &first);
	return result < 0 ? result : interface_options_check(&options, error);
}

#define WORDS_OF(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_addresses(void **state)
{
	assert_int_equal(parse(WORDS_OF("--operation-mode=host", "--start-address", "10.1.0.1",
				 "--end-address", "10.1.0.9", "--subnet-mask", "255.255.255.0")),
		0);
	assert_string_equal(options.operation_mode, "host");
	assert_string_equal(options.start_address, "10.1.0.1");
	assert_string_equal(options.end_address, "10.1.0.9");
	assert_string_equal(options.subnet_mask, "255.255.255.0");
	assert_string_equal(interface_options_network(&options), "host");
}

static void test_bridged(void **state)
{
	assert_int_equal(
		parse(WORDS_OF("--operation-mode", "bridged", "--shared-interface", "eth0")), 0);
	assert_string_equal(options.shared_interface, "eth0");
	assert_string_equal(interface_options_network(&options), "bridged");
}

#define RANGE                                                                                      \
	"--start-address", "10.1.0.1", "--end-address", "10.1.0.9", "--subnet-mask", "255.255.255.0"

/* Each is refused with a line that says both. */
static void test_refusals(void **state)
{
	static const struct {
		const char *words[WORDS_MAX];
		const char *named, *said;
	} refusals[] = {
		{{"--network", "a", "--operation-mode", "shared"}, "--operation-mode",
			"exclude each other"},
		{{"--network", "a", "--shared-interface", "eth0"}, "--shared-interface",
			"exclude each other"},
		{{"--network", "a", RANGE}, "--start-address", "exclude each other"},
		{{"--network", "a", "--subnet-mask", "255.0.0.0"}, "--subnet-mask",
			"exclude each other"},
		{{"--start-address", "10.1.0.1"}, "--end-address", "all three or none"},
		{{"--end-address", "10.1.0.1"}, "--subnet-mask", "all three or none"},
		{{"--start-address", "10.1.0.1", "--end-address", "10.1.0.9"}, "--subnet-mask",
			"all three or none"},
		{{"--operation-mode", "bridged", "--shared-interface", "eth0", RANGE},
			"--start-address", "exclude --operation-mode bridged"},
		{{"--operation-mode", "bridged"}, "--operation-mode bridged",
			"needs --shared-interface"},
		{{"--shared-interface", "eth0"}, "--shared-interface",
			"needs --operation-mode bridged"},
		{{"--operation-mode", "host", "--shared-interface", "eth0"}, "--shared-interface",
			"needs --operation-mode bridged"},
		{{"--shared-interface", "a234567890123456"}, "--shared-interface", "name"},
		{{"--shared-interface", ""}, "--shared-interface", "name"},
		{{"--start-address", "10.1.0"}, "--start-address 10.1.0", "IPv4 address"},
		{{"--end-address", ""}, "--end-address", "IPv4 address"},
		{{"--subnet-mask", "/24"}, "--subnet-mask /24", "IPv4 address"},
		{{"--start-address", "8.8.8.1", "--end-address", "8.8.8.9", "--subnet-mask",
			 "255.255.255.0"},
			"--start-address 8.8.8.1", "private"},
	};

	for (size_t i = 0; i < array_length(refusals); i++) {
		assert_int_equal(parse(refusals[i].words), -EINVAL);
		if (!strstr(error, refusals[i].named) || !strstr(error, refusals[i].said))
			fail_msg("\"%s\": %s, %s", error, refusals[i].named, refusals[i].said);
		assert_true(strlen(error) < sizeof(error) - 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_bridged),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
