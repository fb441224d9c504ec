#include "run/run-options.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define WORDS_MAX 12

static struct run_options options;
static char error[OPTIONS_ERROR_SIZE];

/* The words of a command line, NULL-terminated, without the program's name. */
static int parse(const char *const *words)
{
	static char program[] = "vmnet-client";
	static char *argv[WORDS_MAX + 2];
	int argc = 1;

	argv[0] = program;
	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	argv[argc] = NULL;
	memset(&options, 0xff, sizeof(options));
	error[0] = '\0';
	return run_options_parse(argc, argv, &options, error);
}

#define parse_words(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
	assert_int_equal(parse_words("true"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_SOCKET);
	assert_null(options.interface.network);
	assert_null(options.interface.operation_mode);
	assert_null(options.interface.hostname);
	assert_false(options.interface.has_mac);
	assert_false(options.interface.has_interface_id);
	assert_false(options.qemu);
	assert_false(options.verbose);
	assert_int_equal(options.queues, 0);
	assert_int_equal(options.stats_interval_s, 0);
	assert_int_equal(run_options_queues(&options), 1);
	assert_string_equal(interface_options_network(&options.interface), "shared");
}

static void test_every_option(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

	assert_int_equal(parse_words("--network=blue", "--attach", "native", "--queues", "8",
				 "--mac", "52:54:00:12:34:56", "--hostname=vm-1", "--qemu", "-v"),
		0);
	assert_string_equal(options.interface.network, "blue");
	assert_string_equal(interface_options_network(&options.interface), "blue");
	assert_int_equal(options.attach, RUN_ATTACH_NATIVE);
	assert_int_equal(run_options_queues(&options), 8);
	assert_true(options.interface.has_mac);
	assert_memory_equal(options.interface.mac.bytes, mac, sizeof(mac));
	assert_string_equal(options.interface.hostname, "vm-1");
	assert_true(options.qemu);
	assert_true(options.verbose);
}

static void test_interface_id_and_statistics(void **state)
{
	char text[UUID_TEXT_SIZE];

	assert_int_equal(parse_words("-i", "4c2f9a60-0f3d-4f0e-9a55-6b0c7a1d2e3f",
				 "--stats-interval", "100000", "--operation-mode", "host"),
		0);
	assert_true(options.interface.has_interface_id);
	uuid_to_text(options.interface.interface_id, text);
	assert_string_equal(text, "4C2F9A60-0F3D-4F0E-9A55-6B0C7A1D2E3F");
	assert_int_equal(options.stats_interval_s, 100000);
	assert_string_equal(interface_options_network(&options.interface), "host");
}

static void test_attach_kinds(void **state)
{
	assert_int_equal(parse_words("--attach", "stream", "--stats-interval", "9"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_STREAM);
	assert_int_equal(parse_words("--attach", "vhost-user", "--queues", "4"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_VHOST_USER);
	assert_true(run_options_need_helper(&options));
	assert_int_equal(run_options_queues(&options), 4);
	assert_int_equal(parse_words("--attach", "tap"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_TAP);
	assert_false(run_options_need_helper(&options));
	assert_int_equal(parse_words("--attach=socket", "--qemu"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_SOCKET);
}

static void test_attach_of_qemu(void **state)
{
	assert_int_equal(parse_words("--qemu", "qemu"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_NATIVE);
	assert_int_equal(parse_words("--qemu", "--queues", "2", "qemu"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_NATIVE);
	assert_int_equal(parse_words("--stats-interval", "1", "--qemu", "qemu"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_STREAM);
	assert_int_equal(parse_words("qemu", "--qemu"), 0);
	assert_int_equal(options.attach, RUN_ATTACH_SOCKET);
}

static void test_offloads(void **state)
{
	assert_int_equal(parse_words("--enable-tso", "--enable-checksum-offload"), 0);
	assert_true(options.enable_tso);
	assert_true(options.enable_checksum_offload);
	assert_false(options.vnet_hdr);
	assert_int_equal(parse_words("--vnet-hdr", "--attach", "stream"), 0);
	assert_true(options.vnet_hdr);
	assert_false(options.interface.isolation);
	assert_int_equal(parse_words("--enable-isolation", "--network", "blue"), 0);
	assert_true(options.interface.isolation);
	assert_false(options.enable_tso);
}

/* Whatever stands behind the first word that is no option belongs to the command. */
static void test_command(void **state)
{
	assert_int_equal(parse_words("--network", "blue", "qemu", "--network", "red"), 0);
	assert_string_equal(options.interface.network, "blue");
	assert_string_equal(options.command[0], "qemu");
	assert_string_equal(options.command[1], "--network");
	assert_string_equal(options.command[2], "red");
	assert_null(options.command[3]);
	assert_int_equal(parse_words("--", "--version"), 0);
	assert_false(options.show_version);
	assert_string_equal(options.command[0], "--version");
}

static void test_no_command(void **state)
{
	assert_int_equal(parse_words("--verbose"), 0);
	assert_null(options.command[0]);
	assert_int_equal(parse_words("--verbose", "--"), 0);
	assert_null(options.command[0]);
	assert_int_equal(parse_words("--help"), 0);
	assert_true(options.show_help);
	assert_int_equal(parse_words("--version"), 0);
	assert_true(options.show_version);
}

struct refusal {
	const char *words[8];
	const char *named; /* the error names it */
	const char *said;  /* and says this */
};

static const struct refusal refusals[] = {
	{{"--shared-interface", "eth0"}, "--shared-interface", "needs --operation-mode bridged"},
	{{"--start-address", "192.168.1.1"}, "--start-address", "all three or none"},
	{{"--enable-isolation", "--operation-mode", "bridged", "--shared-interface", "eth0"},
		"--enable-isolation", "excludes --operation-mode bridged"},
	{{"--operation-mode", "bridged"}, "--operation-mode bridged", "needs --shared-interface"},
	{{"--attach", "Native"}, "--attach Native",
		"one of socket, stream, vhost-user, native, tap"},
	{{"--attach", "vhost"}, "--attach vhost", "one of socket, stream, vhost-user, native, tap"},
	{{"--enable-tso"}, "--enable-tso", "both or neither"},
	{{"--enable-checksum-offload"}, "--enable-checksum-offload", "both or neither"},
	{{"--enable-tso", "--enable-checksum-offload", "--vnet-hdr"}, "--vnet-hdr",
		"leave them out"},
	{{"--attach", "native", "--vnet-hdr"}, "--vnet-hdr", "leave them out"},
	{{"--attach", "vhost-user", "--vnet-hdr"}, "--vnet-hdr", "leave them out"},
	{{"--attach", "vhost-user", "--enable-tso", "--enable-checksum-offload"}, "--enable-tso",
		"leave them out"},
	{{"--qemu", "--vnet-hdr"}, "--qemu", "--attach native or vhost-user for offloads"},
	{{"--qemu", "--attach", "stream", "--enable-tso", "--enable-checksum-offload"}, "--qemu",
		"--attach native or vhost-user for offloads"},
	{{"--operation-mode", "nat"}, "--operation-mode nat", "one of shared, host"},
	{{"--operation-mode", ""}, "--operation-mode", "one of shared, host"},
	{{"--network", "a/b"}, "--network a/b", "letters"},
	{{"--network", ""}, "--network", "letters"},
	{{"--network"}, "--network", "needs an argument"},
	{{"--hostname", "-x"}, "--hostname", "letters"},
	{{"--mac", "52:54:00:12:34"}, "--mac", "MAC address"},
	{{"--mac", "01:00:5e:00:00:01"}, "--mac", "multicast"},
	{{"--mac", "00:00:00:00:00:00"}, "--mac", "all zero"},
	{{"--interface-id", "42"}, "--interface-id 42", "UUID"},
	{{"--queues", "0"}, "--queues 0", "from 1 to 8"},
	{{"--queues", "9"}, "--queues 9", "from 1 to 8"},
	{{"--stats-interval", "0"}, "--stats-interval 0", "seconds"},
	{{"--stats-interval", "1.5"}, "--stats-interval 1.5", "seconds"},
	{{"--network", "a", "--operation-mode", "host"}, "--operation-mode", "leave"},
	{{"--operation-mode", "shared", "--network", "a"}, "--network", "leave"},
	{{"--queues", "2"}, "--queues", "--attach native or vhost-user"},
	{{"--queues", "1", "--attach", "stream"}, "--queues", "--attach native or vhost-user"},
	{{"--attach", "native", "--stats-interval", "1"}, "--stats-interval", "leave"},
	{{"--attach", "tap", "--stats-interval", "1"}, "--stats-interval", "leave"},
	{{"--attach", "tap", "--queues", "1"}, "--queues", "--attach native or vhost-user"},
	{{"--attach", "tap", "--vnet-hdr"}, "--vnet-hdr", "leave them out"},
	{{"--fd", "3"}, "--fd", "--help"},
	{{"--socket", "/tmp/x"}, "--socket", "--help"},
	{{"--list-shared-interfaces"}, "--list-shared-interfaces", "--help"},
};

static void test_refusals(void **state)
{
	for (size_t i = 0; i < array_length(refusals); i++) {
		const struct refusal *refusal = &refusals[i];

		assert_int_equal(parse(refusal->words), -EINVAL);
		assert_non_null(strstr(error, refusal->named));
		assert_non_null(strstr(error, refusal->said));
		assert_null(strchr(error, '\n'));
		assert_true(strlen(error) < sizeof(error) - 1);
	}
}

static void test_help_names_what_there_is(void **state)
{
	static const char *const shown[] = {"--network", "--operation-mode", "--attach", "--queues",
		"--interface-id", "--mac", "--hostname", "--qemu", "--stats-interval", "--verbose",
		"--version", "--help", "--start-address", "--shared-interface", "--enable-tso",
		"--enable-checksum-offload", "--vnet-hdr", "vhost-user"};
	cleanup_free char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	assert_non_null(file);
	run_options_print_help(file);
	fclose(file);
	for (size_t i = 0; i < array_length(shown); i++)
		assert_non_null(strstr(text, shown[i]));
	assert_non_null(strstr(text, "--enable-isolation"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_option),
		cmocka_unit_test(test_interface_id_and_statistics),
		cmocka_unit_test(test_attach_kinds),
		cmocka_unit_test(test_attach_of_qemu),
		cmocka_unit_test(test_offloads),
		cmocka_unit_test(test_command),
		cmocka_unit_test(test_no_command),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_help_names_what_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
