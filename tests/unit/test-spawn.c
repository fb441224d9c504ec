/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define DEADLINE_MS 20000

static char shell[] = "/bin/sh", dash_c[] = "-c";

/* What a shell command prints, with its exit status; fds beside the output are the test's. */
static int run_shell(const char *command, const struct spawn_fd *fds, size_t fds_count,
	char *const *environment, char *output, size_t output_size)
{
	char command_copy[1024];
	char *arguments[] = {shell, dash_c, command_copy, NULL};
	struct spawn_fd all[8];
	struct spawn_options options = {.path = shell,
		.arguments = arguments,
		.environment = environment,
		.fds = all,
		.fds_count = fds_count + 1};
	size_t length = 0;
	ssize_t size;
	int ends[2], status;
	pid_t pid;

	assert_true(strlen(command) < sizeof(command_copy));
	strcpy(command_copy, command);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	for (size_t i = 0; i < fds_count; i++)
		all[i] = fds[i];
	all[fds_count] = (struct spawn_fd){.source = ends[1], .target = STDOUT_FILENO};
	assert_int_equal(spawn(&options, &pid, NULL), 0);
	close(ends[1]);
	while ((size = read(ends[0], output + length, output_size - 1 - length)) > 0)
		length += (size_t)size;
	output[length] = '\0';
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void the_child_runs_and_its_status_comes_back(void **state)
{
	char output[64];

	assert_int_equal(run_shell("echo hello; exit 7", NULL, 0, NULL, output, sizeof(output)), 7);
	assert_string_equal(output, "hello\n");
}

/* With builtins only: a program that lists a directory opens it, too. */
static const char list_fds[] = "for fd in 3 4 5 6 7 8 9; do "
			       "if [ -e /proc/self/fd/$fd ]; then printf '%s ' $fd; fi; done";

static void the_child_has_no_fd_it_was_not_given(void **state)
{
	char output[256];
	/* Without CLOEXEC on purpose. */
	int leaked = open("/dev/null", O_RDWR);

	assert_true(leaked > 2);
	assert_int_equal(run_shell(list_fds, NULL, 0, NULL, output, sizeof(output)), 0);
	assert_string_equal(output, "");
	close(leaked);
}

/* Two pipes, each with a letter in it. */
static void make_readers(int readers[2])
{
	for (int i = 0; i < 2; i++) {
		int ends[2];

		assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
		assert_int_equal(write(ends[1], i == 0 ? "A\n" : "B\n", 2), 2);
		close(ends[1]);
		readers[i] = ends[0];
	}
}

static void fds_that_trade_places_arrive_right(void **state)
{
	int readers[2];
	char output[64];

	make_readers(readers);
	{
		const struct spawn_fd swapped[] = {
			{.source = readers[0], .target = readers[1]},
			{.source = readers[1], .target = readers[0]},
		};
		char command[128];

		snprintf(command, sizeof(command), "read x <&%d; read y <&%d; echo $x $y",
			readers[0], readers[1]);
		assert_true(readers[0] < 10 && readers[1] < 10);
		assert_int_equal(run_shell(command, swapped, 2, NULL, output, sizeof(output)), 0);
		assert_string_equal(output, "B A\n");
	}
	/* The caller's own are where they were. */
	assert_true(fcntl(readers[0], F_GETFD) == FD_CLOEXEC);
	close(readers[0]);
	close(readers[1]);
}

static void an_fd_may_stay_where_it_is_and_be_given_twice(void **state)
{
	int readers[2];
	char output[64];

	make_readers(readers);
	{
		const struct spawn_fd same[] = {
			{.source = readers[0], .target = readers[0]},
			{.source = readers[0], .target = 9},
		};
		char command[128];

		snprintf(
			command, sizeof(command), "read x <&%d; echo $x; %s", readers[0], list_fds);
		assert_int_equal(run_shell(command, same, 2, NULL, output, sizeof(output)), 0);
		snprintf(command, sizeof(command), "A\n%d 9 ", readers[0]);
		assert_string_equal(output, command);
	}
	close(readers[0]);
	close(readers[1]);
}

static void the_environment_is_replaced_when_given(void **state)
{
	char variable[] = "SPAWN_TEST=given";
	char *environment[] = {variable, NULL};
	char output[64];

	assert_int_equal(setenv("SPAWN_TEST", "own", 1), 0);
	assert_int_equal(setenv("SPAWN_OTHER", "own", 1), 0);
	run_shell("echo $SPAWN_TEST $SPAWN_OTHER", NULL, 0, environment, output, sizeof(output));
	assert_string_equal(output, "given\n");
	run_shell("echo $SPAWN_TEST $SPAWN_OTHER", NULL, 0, NULL, output, sizeof(output));
	assert_string_equal(output, "own own\n");
}

static void signals_are_as_in_a_fresh_process(void **state)
{
	sigset_t blocked, before;
	char output[512], ignored[64], masked[64];

	sigfillset(&blocked);
	sigprocmask(SIG_SETMASK, &blocked, &before);
	signal(SIGPIPE, SIG_IGN);
	run_shell("while read key value; do case $key in SigBlk:|SigIgn:) echo $key $value;; esac; "
		  "done </proc/self/status",
		NULL, 0, NULL, output, sizeof(output));
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	assert_int_equal(sscanf(output, "SigBlk: %63s SigIgn: %63s", masked, ignored), 2);
	assert_string_equal(masked, "0000000000000000");
	assert_string_equal(ignored, "0000000000000000");
}

static void the_callers_signal_mask_is_kept(void **state)
{
	sigset_t wanted, before, after;
	char output[64];

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigprocmask(SIG_SETMASK, &wanted, &before);
	run_shell("exit 0", NULL, 0, NULL, output, sizeof(output));
	sigprocmask(SIG_SETMASK, &before, &after);
	assert_int_equal(sigismember(&after, SIGUSR1), 1);
	assert_int_equal(sigismember(&after, SIGUSR2), 0);
}

static void expect_no_child(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void expect_spawn_error(const struct spawn_options *options, int error)
{
	pid_t pid = 77;
	int pidfd = 77;

	assert_int_equal(spawn(options, &pid, &pidfd), error);
	assert_int_equal(pid, 77);
	assert_int_equal(pidfd, 77);
	expect_no_child();
}

static int refuse(void *context)
{
	return *(int *)context;
}

static void failures_of_the_child_are_failures_of_the_call(void **state)
{
	char missing[] = "/nonexistent/program", bare[] = "no-such-program-anywhere";
	char plain[] = "/etc/passwd";
	char *arguments[] = {shell, NULL};
	struct spawn_fd closed = {.source = 1000000, .target = 3};
	int refusal = -EPERM;
	struct spawn_options options = {.path = missing, .arguments = arguments};

	expect_spawn_error(&options, -ENOENT);
	options.path = bare;
	expect_spawn_error(&options, -ENOENT);
	options.path = plain;
	expect_spawn_error(&options, -EACCES);
	options.path = shell;
	options.prepare = refuse;
	options.context = &refusal;
	expect_spawn_error(&options, -EPERM);
	options.prepare = NULL;
	options.fds = &closed;
	options.fds_count = 1;
	expect_spawn_error(&options, -EBADF);
	options.fds_count = SPAWN_FDS_MAX + 1;
	expect_spawn_error(&options, -EINVAL);
}

static int change_directory(void *context)
{
	return chdir(context) < 0 ? -errno : 0;
}

static void prepare_runs_in_the_child_only(void **state)
{
	char script[] = "test \"$(pwd)\" = /proc";
	char directory[] = "/proc";
	char *arguments[] = {shell, dash_c, script, NULL};
	struct spawn_options options = {.path = "sh",
		.arguments = arguments,
		.prepare = change_directory,
		.context = directory};
	char before[4096], after[4096];
	int status;
	pid_t pid;

	assert_non_null(getcwd(before, sizeof(before)));
	assert_int_equal(spawn(&options, &pid, NULL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_non_null(getcwd(after, sizeof(after)));
	assert_string_equal(before, after);
}

static void a_pidfd_tells_the_end(void **state)
{
	char script[] = "read line";
	char *arguments[] = {shell, dash_c, script, NULL};
	int ends[2], pidfd, status;
	struct spawn_fd input;
	struct spawn_options options = {
		.path = shell, .arguments = arguments, .fds = &input, .fds_count = 1};
	struct pollfd waiter = {.events = POLLIN};
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	input = (struct spawn_fd){.source = ends[0], .target = STDIN_FILENO};
	assert_int_equal(spawn(&options, &pid, &pidfd), 0);
	close(ends[0]);
	assert_int_equal(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
	waiter.fd = pidfd;
	assert_int_equal(poll(&waiter, 1, 0), 0);
	close(ends[1]);
	assert_int_equal(poll(&waiter, 1, DEADLINE_MS), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 1);
	close(pidfd);
}

static void without_room_for_fds_there_is_no_child(void **state)
{
	char *arguments[] = {shell, NULL};
	struct spawn_options options = {.path = shell, .arguments = arguments};
	int lowest = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
	struct rlimit before, limit;

	assert_true(lowest >= 0);
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	limit = (struct rlimit){.rlim_cur = (rlim_t)lowest + 1, .rlim_max = before.rlim_max};
	/* No room for the error pipe; then room for it, but for nothing more in the child. */
	for (int i = 0; i < 2; i++, limit.rlim_cur++) {
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
		expect_spawn_error(&options, -EMFILE);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_child_runs_and_its_status_comes_back),
		cmocka_unit_test(the_child_has_no_fd_it_was_not_given),
		cmocka_unit_test(fds_that_trade_places_arrive_right),
		cmocka_unit_test(an_fd_may_stay_where_it_is_and_be_given_twice),
		cmocka_unit_test(the_environment_is_replaced_when_given),
		cmocka_unit_test(signals_are_as_in_a_fresh_process),
		cmocka_unit_test(the_callers_signal_mask_is_kept),
		cmocka_unit_test(failures_of_the_child_are_failures_of_the_call),
		cmocka_unit_test(prepare_runs_in_the_child_only),
		cmocka_unit_test(a_pidfd_tells_the_end),
		cmocka_unit_test(without_room_for_fds_there_is_no_child),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
