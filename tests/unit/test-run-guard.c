#include "run/guard.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define DEADLINE_S 20

/* In a process of its own, whose group the guard may end. Exit status 0 when nothing failed and
 * the guard was stopped. */
static pid_t start_client(const char *directory, bool stops)
{
	char path[SOCKET_DIRECTORY_PATH_SIZE];
	struct process_group group = {0};
	struct guard guard;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	guard_init(&guard);
	if (setpgid(0, 0) < 0 || guard_start(&guard, &group) < 0 ||
		guard_watch_directory(&guard, directory) < 0 ||
		socket_directory_make(directory, path) < 0 || mknod(path, S_IFREG | 0600, 0) < 0)
		_exit(1);
	if (!stops)
		kill(getpid(), SIGKILL);
	guard_stop(&guard);
	_exit(access(directory, F_OK) == 0 || errno != ENOENT);
}

static void expect_gone(const char *directory)
{
	time_t deadline = time(NULL) + DEADLINE_S;

	while (access(directory, F_OK) == 0) {
		assert_true(time(NULL) < deadline);
		(void)poll(NULL, 0, 10);
	}
	assert_int_equal(errno, ENOENT);
}

static void test_directory_of_a_killed_client_goes(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	int status;
	pid_t pid;

	assert_int_equal(socket_directory_choose(directory), 0);
	pid = start_client(directory, false);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	expect_gone(directory);
}

static void test_directory_goes_with_the_guard(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	int status;
	pid_t pid;

	assert_int_equal(socket_directory_choose(directory), 0);
	pid = start_client(directory, true);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	expect_gone(directory);
}

static void test_too_long_a_path_is_refused(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE + 1];
	struct guard guard;

	memset(directory, 'x', sizeof(directory) - 1);
	directory[sizeof(directory) - 1] = '\0';
	guard_init(&guard);
	assert_int_equal(guard_watch_directory(&guard, directory), -ENAMETOOLONG);
	assert_string_equal(guard.directory, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_directory_of_a_killed_client_goes),
		cmocka_unit_test(test_directory_goes_with_the_guard),
		cmocka_unit_test(test_too_long_a_path_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
