#include "run/helper-process.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

static void assert_words(
	const struct run_options *options, const char *vhost_user_path, const char *const *expected)
{
	struct helper_arguments arguments;
	size_t i;

	helper_arguments_make(options, vhost_user_path, &arguments);
	for (i = 0; expected[i]; i++) {
		assert_non_null(arguments.words[i]);
		assert_string_equal(arguments.words[i], expected[i]);
	}
	assert_null(arguments.words[i]);
}

static void test_nothing_is_asked(void **state)
{
	static const char *const expected[] = {"vmnet-helper", "--fd=3", NULL};
	const struct run_options options = {0};

	assert_words(&options, NULL, expected);
}

static void test_everything_is_passed_on(void **state)
{
	static const char *const expected[] = {"vmnet-helper", "--fd=3", "--network", "blue",
		"--hostname", "vm", "--interface-id", "01020304-0000-0000-0000-000000000000",
		"--mac", "52:54:00:00:00:01", "--stats-interval", "86400", "--verbose", NULL};
	const struct run_options options = {
		.interface.network = "blue",
		.interface.has_interface_id = true,
		.interface.interface_id = {{1, 2, 3, 4}},
		.interface.has_mac = true,
		.interface.mac = {{0x52, 0x54, 0, 0, 0, 1}},
		.interface.hostname = "vm",
		.stats_interval_s = 86400,
		.verbose = true,
	};

	assert_words(&options, NULL, expected);
}

static void test_operation_mode_is_passed_on(void **state)
{
	static const char *const expected[] = {
		"vmnet-helper", "--fd=3", "--operation-mode", "host", NULL};
	const struct run_options options = {.interface.operation_mode = "host"};

	assert_words(&options, NULL, expected);
}

static void test_offloads_are_passed_on(void **state)
{
	static const char *const tso[] = {
		"vmnet-helper", "--fd=3", "--enable-tso", "--enable-checksum-offload", NULL};
	static const char *const header[] = {"vmnet-helper", "--fd=3", "--vnet-hdr", NULL};
	static const char *const isolated[] = {
		"vmnet-helper", "--fd=3", "--enable-isolation", NULL};

	assert_words(&(const struct run_options){.attach = RUN_ATTACH_STREAM,
			     .enable_tso = true,
			     .enable_checksum_offload = true},
		NULL, tso);
	assert_words(&(const struct run_options){.vnet_hdr = true}, NULL, header);
	assert_words(&(const struct run_options){.interface.isolation = true}, NULL, isolated);
}

/* As many words as there can be: none may be lost. */
static void test_vhost_user_with_everything(void **state)
{
	static const char *const expected[] = {"vmnet-helper", "--vhost-user", "/tmp/v/net",
		"--queues", "8", "--operation-mode", "host", "--start-address", "10.0.0.1",
		"--end-address", "10.0.0.9", "--subnet-mask", "255.255.255.0", "--hostname", "vm",
		"--interface-id", "00000000-0000-0000-0000-000000000000", "--mac",
		"52:54:00:00:00:01", "--stats-interval", "4294967295", "--verbose", NULL};
	const struct run_options options = {
		.attach = RUN_ATTACH_VHOST_USER,
		.queues = 8,
		.interface =
			{
				.operation_mode = "host",
				.start_address = "10.0.0.1",
				.end_address = "10.0.0.9",
				.subnet_mask = "255.255.255.0",
				.has_interface_id = true,
				.has_mac = true,
				.mac = {{0x52, 0x54, 0, 0, 0, 1}},
				.hostname = "vm",
			},
		.stats_interval_s = UINT32_MAX,
		.verbose = true,
	};

	assert_words(&options, "/tmp/v/net", expected);
}

/* What a helper that is a script of the shell's comes to; in a process of its own, since it is
 * taken over. */
struct readiness {
	int result;
	char line[HELPER_LINE_SIZE];
	char error[HELPER_ERROR_SIZE];
};

static struct readiness read_script(const char *script)
{
	char shell[] = "/bin/sh";
	char option[] = "-c";
	char *const arguments[] = {shell, option, (char *)(uintptr_t)script, NULL};
	struct readiness readiness = {0};
	struct supervisor supervisor;
	int ends[2];

	if (supervisor_start(&supervisor) < 0 || pipe(ends) < 0)
		_exit(1);
	const struct spawn_fd fds[] = {{ends[1], STDOUT_FILENO}};
	const struct spawn_options options = {
		.path = shell, .arguments = arguments, .fds = fds, .fds_count = 1};

	if (supervisor_run(&supervisor, &supervisor.helper, &options) < 0)
		_exit(1);
	close(ends[1]);
	readiness.result =
		helper_process_wait_ready(&supervisor, ends[0], readiness.line, readiness.error);
	supervisor_finish(&supervisor);
	return readiness;
}

static struct readiness wait_for_script(const char *script)
{
	struct readiness readiness;
	int ends[2];
	int status;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		readiness = read_script(script);
		_exit(write(ends[1], &readiness, sizeof(readiness)) != sizeof(readiness));
	}
	close(ends[1]);
	for (size_t size = 0; size < sizeof(readiness);) {
		ssize_t count = read(ends[0], (char *)&readiness + size, sizeof(readiness) - size);

		assert_true(count > 0);
		size += (size_t)count;
	}
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return readiness;
}

/* dd writes each byte by itself. */
static void test_line_in_pieces(void **state)
{
	struct readiness readiness =
		wait_for_script("printf '{\"a\":1}\\nmore' | dd bs=1 2>/dev/null; exec sleep 60");

	assert_int_equal(readiness.result, 0);
	assert_string_equal(readiness.line, "{\"a\":1}\n");
	assert_string_equal(readiness.error, "");
}

static void test_helper_that_fails(void **state)
{
	struct readiness readiness = wait_for_script("exit 3");

	assert_int_equal(readiness.result, -ECHILD);
	assert_non_null(strstr(readiness.error, "exit status 3"));
}

static void test_helper_that_closes_its_output_first(void **state)
{
	struct readiness readiness = wait_for_script("exec >&-; kill -KILL $$");

	assert_int_equal(readiness.result, -ECHILD);
	assert_non_null(strstr(readiness.error, "signal 9"));
}

static void test_line_without_end(void **state)
{
	struct readiness readiness =
		wait_for_script("head -c 5000 /dev/zero | tr '\\0' x; exec sleep 60");

	assert_int_equal(readiness.result, -EMSGSIZE);
	assert_non_null(strstr(readiness.error, "vmnet-helper"));
}

static void test_stop_while_waiting(void **state)
{
	struct readiness readiness = wait_for_script("kill -TERM $PPID; exec sleep 60");

	assert_int_equal(readiness.result, -EINTR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_asked),
		cmocka_unit_test(test_everything_is_passed_on),
		cmocka_unit_test(test_operation_mode_is_passed_on),
		cmocka_unit_test(test_offloads_are_passed_on),
		cmocka_unit_test(test_vhost_user_with_everything),
		cmocka_unit_test(test_line_in_pieces),
		cmocka_unit_test(test_helper_that_fails),
		cmocka_unit_test(test_helper_that_closes_its_output_first),
		cmocka_unit_test(test_line_without_end),
		cmocka_unit_test(test_stop_while_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
