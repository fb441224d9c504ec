#include "base/exec-failure.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PATH "/bin:/usr/bin" /* execvp(3)'s own, without PATH */

static bool exists_in(const char *directory, size_t length, const char *command)
{
	char path[PATH_MAX];
	int size = snprintf(path, sizeof(path), "%.*s%s%s", (int)length, directory,
		length > 0 ? "/" : "", command);

	return size < (int)sizeof(path) && access(path, F_OK) == 0;
}

static bool is_in_path(const char *command)
{
	const char *directory = getenv("PATH");

	if (!directory)
		directory = DEFAULT_PATH;
	while (directory) {
		const char *end = strchrnul(directory, ':');

		if (exists_in(directory, (size_t)(end - directory), command))
			return true;
		directory = *end ? end + 1 : NULL;
	}
	return false;
}

/* execvp(3) fails with EACCES as well when a directory in PATH may not be looked into. */
static bool is_missing(const char *command, int error)
{
	if (error == -ENOENT || error == -ENOTDIR)
		return true;
	return error == -EACCES && !strchr(command, '/') && !is_in_path(command);
}

int exec_failure_explain(const char *command, int error, char *text)
{
	if (is_missing(command, error)) {
		snprintf(text, EXEC_FAILURE_ERROR_SIZE,
			"command %.256s not found: give its path, or the name of a program in PATH",
			command);
		return EXEC_FAILURE_NOT_FOUND;
	}
	if (error == -EAGAIN || error == -EMFILE || error == -ENFILE || error == -ENOMEM) {
		snprintf(text, EXEC_FAILURE_ERROR_SIZE, "can't start command %.256s: %s", command,
			strerror(-error));
		return EXIT_FAILURE;
	}
	snprintf(text, EXEC_FAILURE_ERROR_SIZE,
		"can't execute command %.256s: %s; it must be a program that this user may run",
		command, strerror(-error));
	return EXEC_FAILURE_NOT_EXECUTABLE;
}
