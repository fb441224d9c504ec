#include "helper/helper-options.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define ID     "1b5e0b8a-6a0f-4a51-9c8b-d1a0d8f0a1c2"
#define WORDS  16
#define PATH10 "/123456789"

static int parse(const char *const *words, struct helper_options *options, char *error)
{
	char *arguments[WORDS + 2] = {(char *)"vmnet-helper"};
	int count = 1;

	for (; *words; words++) {
		assert_true(count <= WORDS);
		arguments[count++] = (char *)*words;
	}
	*error = '\0';
	return helper_options_parse(count, arguments, options, error);
}

#define WORDS_OF(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct helper_options parsed(const char *const *words)
{
	struct helper_options options;
	char error[OPTIONS_ERROR_SIZE];
	int result = parse(words, &options, error);

	if (result < 0)
		fail_msg("refused: %s", error);
	return options;
}

static void assert_refused(const char *const *words, const char *named)
{
	struct helper_options options = {.fd = 77};
	char error[OPTIONS_ERROR_SIZE];

	assert_true(parse(words, &options, error) < 0);
	assert_int_equal(options.fd, 77);
	assert_null(strchr(error, '\n'));
	if (!strstr(error, named))
		fail_msg("\"%s\" does not name %s", error, named);
}

static void test_defaults(void **state)
{
	struct helper_options options = parsed(WORDS_OF("--fd", "3"));

	assert_int_equal(options.action, HELPER_RUN);
	assert_int_equal(options.fd, 3);
	assert_null(options.socket_path);
	assert_null(options.interface.network);
	assert_string_equal(interface_options_network(&options.interface), "shared");
	assert_false(options.interface.has_interface_id);
	assert_false(options.interface.has_mac);
	assert_null(options.interface.hostname);
	assert_int_equal(options.stats_interval_seconds, 0);
	assert_false(options.is_verbose);
}

static void test_every_option_is_taken(void **state)
{
	struct helper_options options =
		parsed(WORDS_OF("--socket=/s", "--network", "blue", "--interface-id", ID, "--mac",
			"52:54:00:aa:BB:01", "--hostname", "box", "--stats-interval=5", "-v"));
	char text[UUID_TEXT_SIZE];

	assert_string_equal(options.socket_path, "/s");
	assert_int_equal(options.fd, -1);
	assert_string_equal(options.interface.network, "blue");
	assert_true(options.interface.has_interface_id);
	uuid_to_text(options.interface.interface_id, text);
	assert_string_equal(text, "1B5E0B8A-6A0F-4A51-9C8B-D1A0D8F0A1C2");
	assert_true(options.interface.has_mac);
	assert_memory_equal(options.interface.mac.bytes, "\x52\x54\x00\xaa\xbb\x01", 6);
	assert_string_equal(options.interface.hostname, "box");
	assert_int_equal(options.stats_interval_seconds, 5);
	assert_true(options.is_verbose);
}

static void test_short_forms(void **state)
{
	struct helper_options options = parsed(WORDS_OF("-f0", "-i", ID));

	assert_int_equal(options.fd, 0);
	assert_true(options.interface.has_interface_id);
	assert_string_equal(parsed(WORDS_OF("-s", "/x")).socket_path, "/x");
	assert_int_equal(parsed(WORDS_OF("-h")).action, HELPER_PRINT_HELP);
}

static void test_modes_are_networks(void **state)
{
	struct helper_options options = parsed(WORDS_OF("-f3", "--operation-mode", "host"));

	assert_null(options.interface.network);
	assert_string_equal(interface_options_network(&options.interface), "host");
	options = parsed(WORDS_OF("-f3", "--network", "host"));
	assert_string_equal(options.interface.network, "host");
}

static void test_positional_arguments_are_passed_over(void **state)
{
	struct helper_options options = parsed(WORDS_OF("a", "--fd", "3", "b", "c", "-v", "d"));

	assert_int_equal(options.fd, 3);
	assert_true(options.is_verbose);
	options = parsed(WORDS_OF("--fd", "3", "--", "--bogus", "-v"));
	assert_false(options.is_verbose);
	assert_refused(WORDS_OF("a", "--bogus", "--fd", "3"), "--bogus");
}

static void test_actions_need_nothing_else(void **state)
{
	assert_int_equal(parsed(WORDS_OF("--help")).action, HELPER_PRINT_HELP);
	assert_int_equal(parsed(WORDS_OF("--version")).action, HELPER_PRINT_VERSION);
	assert_int_equal(
		parsed(WORDS_OF("--list-shared-interfaces")).action, HELPER_LIST_SHARED_INTERFACES);
}

static void test_bad_values_are_refused(void **state)
{
	static const char *const pairs[][2] = {
		{"--fd", ""},
		{"--fd", "-1"},
		{"--fd", " 3"},
		{"--fd", "3x"},
		{"--fd", "2147483648"},
		{"--fd", "1"},
		{"--fd", "2"},
		{"--socket", ""},
		{"--stream", ""},
		{"--vhost-user", ""},
		{"--queues", "0"},
		{"--queues", "9"},
		{"--queues", "two"},
		{"--interface-id", "1234"},
		{"--interface-id", ID "0"},
		{"--operation-mode", "bridged"},
		{"--shared-interface", "eth0"},
		{"--start-address", "192.168.7.1"},
		{"--operation-mode", "nat"},
		{"--network", ""},
		{"--network", "../x"},
		{"--network", "-x"},
		{"--mac", "01:00:5e:00:00:01"},
		{"--mac", "00:00:00:00:00:00"},
		{"--mac", "52-54-00-aa-bb-01"},
		{"--hostname", "-a"},
		{"--hostname", "a.b"},
		{"--stats-interval", "0"},
		{"--stats-interval", "-1"},
		{"--stats-interval", "1.5"},
		{"--stats-interval", "soon"},
	};

	for (size_t i = 0; i < array_length(pairs); i++)
		assert_refused(WORDS_OF("-f3", pairs[i][0], pairs[i][1]), pairs[i][0]);
}

static void test_conflicts_are_refused_by_name(void **state)
{
	assert_refused(
		WORDS_OF("-f3", "--network", "blue", "--operation-mode", "host"), "--network");
	assert_refused(WORDS_OF("-f3", "--operation-mode", "host", "--network", "blue"),
		"--operation-mode");
	assert_refused(WORDS_OF("-f3", "-s/x"), "--socket");
	assert_refused(WORDS_OF("-f3", "--stream", "/x"), "--stream");
	assert_refused(WORDS_OF("--stream", "/x", "--vhost-user", "/y"), "--vhost-user");
	assert_refused(WORDS_OF("-f3", "--queues", "2"), "--queues");
	assert_refused(WORDS_OF("-f3", "--enable-tso"), "--enable-checksum-offload");
	assert_refused(WORDS_OF("-f3", "--enable-checksum-offload"), "--enable-tso");
	assert_refused(WORDS_OF("-f3", "--enable-tso", "--enable-checksum-offload", "--vnet-hdr"),
		"--vnet-hdr");
	assert_refused(WORDS_OF("--vhost-user", "/x", "--vnet-hdr"), "--vnet-hdr");
	assert_refused(WORDS_OF("--vhost-user", "/x", "--enable-tso", "--enable-checksum-offload"),
		"--enable-tso");
	assert_refused(WORDS_OF("--network", "blue"), "--fd");
	assert_refused(WORDS_OF("-v"), "--socket");
}

static void test_transports(void **state)
{
	struct helper_options options = parsed(WORDS_OF("--stream", "/x"));

	assert_string_equal(options.stream_path, "/x");
	assert_string_equal(helper_options_path(&options), "/x");
	options = parsed(WORDS_OF("--vhost-user", "/y", "--queues", "8"));
	assert_string_equal(helper_options_path(&options), "/y");
	assert_int_equal(options.queues, 8);
	options = parsed(WORDS_OF("--socket", "/z"));
	assert_string_equal(helper_options_path(&options), "/z");
	options = parsed(WORDS_OF("-f3"));
	assert_null(helper_options_path(&options));
}

static void test_offload_modes(void **state)
{
	struct helper_options options = parsed(WORDS_OF("-f3"));

	assert_int_equal(helper_options_offload_mode(&options), OFFLOAD_NONE);
	options = parsed(WORDS_OF("-f3", "--enable-tso", "--enable-checksum-offload"));
	assert_int_equal(helper_options_offload_mode(&options), OFFLOAD_RAW);
	assert_true(parsed(WORDS_OF("-f3", "--enable-isolation")).interface.isolation);
	options = parsed(WORDS_OF("-f3", "--vnet-hdr"));
	assert_false(options.interface.isolation);
	assert_int_equal(helper_options_offload_mode(&options), OFFLOAD_VNET_HDR);
}

static void test_unknown_and_incomplete_options_are_refused(void **state)
{
	assert_refused(WORDS_OF("-f3", "--bogus"), "--bogus");
	assert_refused(WORDS_OF("-f3", "-x"), "-x");
	assert_refused(WORDS_OF("--fd"), "--fd");
	assert_refused(WORDS_OF("-f3", "--network"), "--network");
	assert_refused(WORDS_OF("-f3", "--verbose=1"), "--verbose");
}

static void test_longest_socket_path(void **state)
{
	static const char path[] =
		PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 "/234567";

	assert_int_equal(strlen(path), 107);
	assert_string_equal(parsed(WORDS_OF("--socket", path)).socket_path, path);
	assert_refused(WORDS_OF("--socket",
			       PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10 PATH10
			       "/2345678"),
		"--socket");
}

static void test_help_shows_what_there_is(void **state)
{
	char text[4096] = "";
	FILE *file = fmemopen(text, sizeof(text) - 1, "w");

	helper_options_print_help(file);
	fclose(file);
	assert_non_null(strstr(text, "--stats-interval SECONDS"));
	assert_non_null(strstr(text, "-i, --interface-id UUID"));
	assert_non_null(strstr(text, "--enable-isolation"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_option_is_taken),
		cmocka_unit_test(test_short_forms),
		cmocka_unit_test(test_modes_are_networks),
		cmocka_unit_test(test_positional_arguments_are_passed_over),
		cmocka_unit_test(test_actions_need_nothing_else),
		cmocka_unit_test(test_bad_values_are_refused),
		cmocka_unit_test(test_conflicts_are_refused_by_name),
		cmocka_unit_test(test_transports),
		cmocka_unit_test(test_offload_modes),
		cmocka_unit_test(test_unknown_and_incomplete_options_are_refused),
		cmocka_unit_test(test_longest_socket_path),
		cmocka_unit_test(test_help_shows_what_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
