#include "run/socket-directory.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char runtime[64];

static int make_runtime(void **state)
{
	strcpy(runtime, "/tmp/test-runtime-XXXXXX");
	unsetenv("SUDO_UID");
	unsetenv("SUDO_GID");
	return mkdtemp(runtime) ? setenv("XDG_RUNTIME_DIR", runtime, 1) : -1;
}

static int remove_runtime(void **state)
{
	return rmdir(runtime);
}

static bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

static void test_directory_is_private_and_goes(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	char path[SOCKET_DIRECTORY_PATH_SIZE];
	char lock[SOCKET_DIRECTORY_PATH_SIZE + 8];
	struct stat status;

	assert_int_equal(socket_directory_choose(directory), 0);
	assert_true(starts_with(directory, runtime));
	assert_int_equal(access(directory, F_OK), -1);
	assert_int_equal(socket_directory_make(directory, path), 0);
	assert_int_equal(stat(directory, &status), 0);
	assert_int_equal(status.st_mode, S_IFDIR | 0700);
	assert_true(starts_with(path, directory));
	snprintf(lock, sizeof(lock), "%s.lock", path);
	assert_int_equal(mknod(path, S_IFSOCK | 0600, 0), 0);
	assert_int_equal(mknod(lock, S_IFREG | 0600, 0), 0);
	socket_directory_remove(directory);
	assert_int_equal(access(directory, F_OK), -1);
	assert_int_equal(errno, ENOENT);
	socket_directory_remove(directory);
	socket_directory_remove("");
}

static void test_each_choice_is_another(void **state)
{
	char one[SOCKET_DIRECTORY_PATH_SIZE];
	char other[SOCKET_DIRECTORY_PATH_SIZE];

	assert_int_equal(socket_directory_choose(one), 0);
	assert_int_equal(socket_directory_choose(other), 0);
	assert_string_not_equal(one, other);
}

static void test_what_is_there_is_not_taken(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	char path[SOCKET_DIRECTORY_PATH_SIZE];

	assert_int_equal(socket_directory_choose(directory), 0);
	assert_int_equal(mkdir(directory, 0700), 0);
	assert_int_equal(socket_directory_make(directory, path), -EEXIST);
	assert_int_equal(rmdir(directory), 0);
}

/* A link that somebody put in its place is not followed. */
static void test_links_are_not_followed(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	char file[sizeof(runtime) + 8];

	snprintf(file, sizeof(file), "%s/file", runtime);
	assert_int_equal(mknod(file, S_IFREG | 0600, 0), 0);
	assert_int_equal(socket_directory_choose(directory), 0);
	assert_int_equal(symlink(runtime, directory), 0);
	socket_directory_remove(directory);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(unlink(directory), 0);
	assert_int_equal(unlink(file), 0);
}

static void assert_fallback(const char *value)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];

	if (value)
		setenv("XDG_RUNTIME_DIR", value, 1);
	else
		unsetenv("XDG_RUNTIME_DIR");
	assert_int_equal(socket_directory_choose(directory), 0);
	assert_true(starts_with(directory, "/tmp/vmnet-"));
}

static void test_fallback(void **state)
{
	char with_comma[] = "/tmp/test,runtime-XXXXXX";
	char deep[160];

	assert_fallback(NULL);
	assert_fallback("");
	assert_fallback("relative");
	assert_fallback("/nonexistent");
	assert_fallback("/etc/passwd");
	assert_non_null(mkdtemp(with_comma));
	assert_fallback(with_comma);
	assert_int_equal(rmdir(with_comma), 0);
	snprintf(deep, sizeof(deep), "%s/%080d", runtime, 0);
	assert_int_equal(mkdir(deep, 0700), 0);
	assert_fallback(deep);
	assert_int_equal(rmdir(deep), 0);
}

/* Only root can give a directory away; the helper would drop to that user. */
static void test_sudo(void **state)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	char path[SOCKET_DIRECTORY_PATH_SIZE];
	struct stat status;

	setenv("SUDO_UID", "4242", 1);
	setenv("SUDO_GID", "4343", 1);
	assert_int_equal(socket_directory_choose(directory), 0);
	assert_true(starts_with(directory, getuid() == 0 ? "/tmp/vmnet-" : runtime));
	assert_int_equal(socket_directory_make(directory, path), 0);
	assert_int_equal(stat(directory, &status), 0);
	assert_int_equal(status.st_uid, getuid() == 0 ? 4242 : getuid());
	assert_int_equal(status.st_gid, getuid() == 0 ? 4343 : getgid());
	socket_directory_remove(directory);
}

#define test_in_runtime(test) cmocka_unit_test_setup_teardown(test, make_runtime, remove_runtime)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_in_runtime(test_directory_is_private_and_goes),
		test_in_runtime(test_each_choice_is_another),
		test_in_runtime(test_what_is_there_is_not_taken),
		test_in_runtime(test_links_are_not_followed),
		test_in_runtime(test_fallback),
		test_in_runtime(test_sudo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
