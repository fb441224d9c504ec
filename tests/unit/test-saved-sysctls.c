/* Switches that are put back, in a directory that plays /proc/sys/net. */

#include "base/cleanup.h"
#include "priv/saved-sysctls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char place[] = "/tmp/vmnet-sysctls-XXXXXX";

static void path_of(const char *interface_name, const char *key, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/ipv4/conf/%s/%s", place, interface_name, key);
}

static void write_file(const char *path, const char *text)
{
	cleanup_file FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

static void put(const char *interface_name, const char *key, const char *value)
{
	char path[PATH_MAX];

	path_of(interface_name, key, path);
	write_file(path, value);
}

static char get(const char *interface_name)
{
	char path[PATH_MAX];
	cleanup_file FILE *file = NULL;

	path_of(interface_name, "forwarding", path);
	file = fopen(path, "r");
	assert_non_null(file);
	return (char)fgetc(file);
}

static int make_place(void **state)
{
	static const char *const made[] = {
		"ipv4", "ipv4/conf", "ipv4/conf/all", "ipv4/conf/up0", "ipv4/conf/vpn0"};
	char path[PATH_MAX];

	if (!mkdtemp(place))
		return -1;
	for (size_t i = 0; i < array_length(made); i++) {
		snprintf(path, sizeof(path), "%s/%s", place, made[i]);
		if (mkdir(path, 0700) < 0)
			return -1;
	}
	return 0;
}

static int fill_place(void **state)
{
	put("all", "forwarding", "0\n");
	put("up0", "forwarding", "0\n");
	put("vpn0", "forwarding", "1\n");
	return 0;
}

static int remove_place(void **state)
{
	char command[PATH_MAX];

	snprintf(command, sizeof(command), "rm -r %s", place);
	return system(command);
}

/* What one verb does: load, set what is wanted, restore the rest. */
static int apply(const char *const *wanted)
{
	struct saved_sysctls saved = {.directory = place, .root = place};
	int error = saved_sysctls_load(&saved);

	for (; !error && *wanted; wanted++)
		error = saved_sysctls_set(&saved, "ipv4", *wanted, "forwarding", '1');
	if (!error)
		error = saved_sysctls_restore(&saved);
	saved_sysctls_done(&saved);
	return error;
}

static bool file_exists(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" SAVED_SYSCTLS_FILE, place);
	return access(path, F_OK) == 0;
}

static const char *const none[] = {NULL};
static const char *const both[] = {"up0", "vpn0", NULL};
static const char *const up[] = {"up0", NULL};

static void value_comes_back(void **state)
{
	assert_int_equal(apply(both), 0);
	assert_int_equal(get("up0"), '1');
	assert_true(file_exists());
	assert_int_equal(apply(up), 0);
	assert_int_equal(apply(none), 0);
	assert_int_equal(get("up0"), '0');
	assert_int_equal(get("vpn0"), '1');
	assert_false(file_exists());
}

static void what_was_on_before_is_not_ours(void **state)
{
	static const char *const vpn[] = {"vpn0", NULL};

	assert_int_equal(apply(vpn), 0);
	assert_false(file_exists());
}

static void what_somebody_turned_off_is_turned_on_again(void **state)
{
	assert_int_equal(apply(up), 0);
	put("up0", "forwarding", "0\n");
	assert_int_equal(apply(up), 0);
	assert_int_equal(get("up0"), '1');
	put("up0", "forwarding", "0\n");
	assert_int_equal(apply(none), 0);
	assert_false(file_exists());
}

static void what_is_on_for_everybody_stays_on(void **state)
{
	assert_int_equal(apply(up), 0);
	put("all", "forwarding", "1\n");
	assert_int_equal(apply(none), 0);
	assert_int_equal(get("up0"), '1');
	assert_false(file_exists());
}

static void interface_that_has_gone_is_forgotten(void **state)
{
	static const char *const gone[] = {"none0", NULL};
	char path[PATH_MAX];

	assert_int_equal(apply(gone), -ENOENT);
	assert_int_equal(apply(up), 0);
	path_of("up0", "forwarding", path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(apply(none), 0);
	assert_false(file_exists());
}

static void damaged_file_changes_nothing(void **state)
{
	static const char *const damaged[] = {
		"ipv4 ../../x forwarding 0 1\n",
		"ipv4 .. forwarding 0 1\n",
		"ipv5 up0 forwarding 0 1\n",
		"ipv4 up0 ../mtu 0 1\n",
		"ipv4 up0 forwarding 00 1\n",
		"ipv4 up0 forwarding 0 x\n",
		"ipv4 up0 forwarding 0\n",
		"\n",
	};
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" SAVED_SYSCTLS_FILE, place);
	for (size_t i = 0; i < array_length(damaged); i++) {
		write_file(path, damaged[i]);
		assert_int_equal(apply(up), -EBADMSG);
		assert_int_equal(get("up0"), '0');
	}
	write_file(path, "");
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(apply(up), -EPERM);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(apply(up), -ELOOP);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(value_comes_back, fill_place),
		cmocka_unit_test_setup(what_was_on_before_is_not_ours, fill_place),
		cmocka_unit_test_setup(what_somebody_turned_off_is_turned_on_again, fill_place),
		cmocka_unit_test_setup(what_is_on_for_everybody_stays_on, fill_place),
		cmocka_unit_test_setup(interface_that_has_gone_is_forgotten, fill_place),
		cmocka_unit_test_setup(damaged_file_changes_nothing, fill_place),
	};

	return cmocka_run_group_tests(tests, make_place, remove_place);
}
