#include "base/exec-failure.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct failure {
	const char *command;
	int error;
	int status;
	const char *said;
};

static const struct failure failures[] = {
	{"no-such-program", -ENOENT, EXEC_FAILURE_NOT_FOUND, "no-such-program not found"},
	{"/bin/sh/x", -ENOTDIR, EXEC_FAILURE_NOT_FOUND, "not found"},
	/* A directory in PATH could not be looked into. */
	{"no-such-program", -EACCES, EXEC_FAILURE_NOT_FOUND, "not found"},
	{"", -ENOENT, EXEC_FAILURE_NOT_FOUND, "not found"},
	/* Found there, but not to be run. */
	{"passwd", -EACCES, EXEC_FAILURE_NOT_EXECUTABLE, "Permission denied"},
	{"/etc/passwd", -EACCES, EXEC_FAILURE_NOT_EXECUTABLE, "/etc/passwd"},
	{"/etc", -EACCES, EXEC_FAILURE_NOT_EXECUTABLE, "/etc"},
	{"x", -E2BIG, EXEC_FAILURE_NOT_EXECUTABLE, "too long"},
	{"x", -ENOMEM, EXIT_FAILURE, "memory"},
	{"x", -EAGAIN, EXIT_FAILURE, "can't start"},
};

static void test_explanations(void **state)
{
	setenv("PATH", "/nonexistent::/etc:/usr/bin", 1);
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		char text[EXEC_FAILURE_ERROR_SIZE];

		assert_int_equal(exec_failure_explain(failures[i].command, failures[i].error, text),
			failures[i].status);
		assert_non_null(strstr(text, failures[i].said));
	}
}

static void test_no_path_at_all(void **state)
{
	char text[EXEC_FAILURE_ERROR_SIZE];

	unsetenv("PATH");
	assert_int_equal(exec_failure_explain("sh", -EACCES, text), EXEC_FAILURE_NOT_EXECUTABLE);
	assert_int_equal(
		exec_failure_explain("no-such-program", -EACCES, text), EXEC_FAILURE_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_explanations),
		cmocka_unit_test(test_no_path_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
