/* Where an ordinary user's broker keeps its files, in environments that others may have left. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/user-paths.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static char own[] = "/tmp/vmnet-user-paths-XXXXXX";
static char usual[sizeof("/run/user/4294967295")];
static char fallback[sizeof("/tmp/vmnet-broker-4294967295")];

static int make_own(void **state)
{
	snprintf(usual, sizeof(usual), "/run/user/%u", geteuid());
	snprintf(fallback, sizeof(fallback), "/tmp/vmnet-broker-%u", geteuid());
	return mkdtemp(own) ? 0 : -1;
}

static int remove_own(void **state)
{
	return rmdir(own);
}

static int forget(void **state)
{
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("XDG_STATE_HOME");
	return unsetenv("HOME");
}

static void assert_path(
	int (*find)(char *path, size_t size), const char *directory, const char *rest)
{
	char path[PATH_MAX] = "", expected[PATH_MAX];

	snprintf(expected, sizeof(expected), "%s%s", directory, rest);
	assert_int_equal(find(path, sizeof(path)), 0);
	assert_string_equal(path, expected);
}

/* systemd-logind's directory if this user has a session, else below /tmp. */
static void assert_without_session(void)
{
	struct stat status;

	if (stat(usual, &status) == 0 && status.st_uid == geteuid())
		assert_path(user_runtime_directory, usual, "/vmnet-broker");
	else
		assert_path(user_runtime_directory, fallback, "");
}

static void a_session_has_a_directory(void **state)
{
	setenv("XDG_RUNTIME_DIR", own, 1);
	assert_path(user_runtime_directory, own, "/vmnet-broker");
}

static void a_directory_that_is_none_of_ours_is_passed_over(void **state)
{
	static const char *const bad[] = {"", "relative", "/nonexistent", "/dev/null"};

	assert_without_session();
	for (size_t i = 0; i < array_length(bad); i++) {
		setenv("XDG_RUNTIME_DIR", bad[i], 1);
		assert_without_session();
	}
}

static void a_path_that_does_not_fit_is_not_cut(void **state)
{
	char path[24] = "as before";

	setenv("XDG_RUNTIME_DIR", own, 1);
	assert_int_equal(user_runtime_directory(path, sizeof(path)), -ENAMETOOLONG);
}

static void configuration_and_state_are_at_home(void **state)
{
	setenv("HOME", own, 1);
	assert_path(user_config_directory, own, "/.config/vmnet-broker");
	assert_path(user_state_directory, own, "/.local/state/vmnet-broker");
}

static void the_environment_may_name_others(void **state)
{
	setenv("HOME", own, 1);
	setenv("XDG_CONFIG_HOME", "/etc/xdg", 1);
	setenv("XDG_STATE_HOME", "/var/lib", 1);
	assert_path(user_config_directory, "/etc/xdg", "/vmnet-broker");
	assert_path(user_state_directory, "/var/lib", "/vmnet-broker");
	/* The specification has relative ones ignored. */
	setenv("XDG_CONFIG_HOME", "here", 1);
	setenv("XDG_STATE_HOME", "", 1);
	assert_path(user_config_directory, own, "/.config/vmnet-broker");
	assert_path(user_state_directory, own, "/.local/state/vmnet-broker");
}

static void who_has_no_home_has_none(void **state)
{
	static const char *const bad[] = {"", "relative", "/nonexistent"};
	char path[PATH_MAX];

	assert_int_equal(user_state_directory(path, sizeof(path)), -ENOENT);
	for (size_t i = 0; i < array_length(bad); i++) {
		setenv("HOME", bad[i], 1);
		assert_int_equal(user_config_directory(path, sizeof(path)), -ENOENT);
		assert_int_equal(user_state_directory(path, sizeof(path)), -ENOENT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_session_has_a_directory, forget),
		cmocka_unit_test_setup(a_directory_that_is_none_of_ours_is_passed_over, forget),
		cmocka_unit_test_setup(a_path_that_does_not_fit_is_not_cut, forget),
		cmocka_unit_test_setup(configuration_and_state_are_at_home, forget),
		cmocka_unit_test_setup(the_environment_may_name_others, forget),
		cmocka_unit_test_setup(who_has_no_home_has_none, forget),
	};

	return cmocka_run_group_tests(tests, make_own, remove_own);
}
