#include "base/user-paths.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "vmnet-broker"

static int check_length(int length, size_t size)
{
	return length < 0 || (size_t)length >= size ? -ENAMETOOLONG : 0;
}

/* A session of another user's may have left its own in the environment. */
static bool is_own_directory(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid();
}

/* Anybody can make anything in /tmp. */
static bool is_safe(const char *path)
{
	struct stat status;

	if (lstat(path, &status) < 0)
		return errno == ENOENT;
	return S_ISDIR(status.st_mode) && status.st_uid == geteuid() &&
	       !(status.st_mode & (S_IWGRP | S_IWOTH));
}

int user_runtime_directory(char *path, size_t size)
{
	const char *session = secure_getenv("XDG_RUNTIME_DIR");
	unsigned int uid = geteuid();
	char usual[sizeof("/run/user/4294967295")];
	int error;

	if (session && *session == '/' && is_own_directory(session))
		return check_length(snprintf(path, size, "%s/" NAME, session), size);
	snprintf(usual, sizeof(usual), "/run/user/%u", uid);
	if (is_own_directory(usual))
		return check_length(snprintf(path, size, "%s/" NAME, usual), size);
	error = check_length(snprintf(path, size, "/tmp/" NAME "-%u", uid), size);
	if (error)
		return error;
	return is_safe(path) ? 0 : -EPERM;
}

static int below_home(const char *variable, const char *usual, char *path, size_t size)
{
	const char *base = secure_getenv(variable);
	const char *home = secure_getenv("HOME");

	if (base && *base == '/')
		return check_length(snprintf(path, size, "%s/" NAME, base), size);
	if (!home || *home != '/' || !is_own_directory(home))
		return -ENOENT;
	return check_length(snprintf(path, size, "%s/%s/" NAME, home, usual), size);
}

int user_config_directory(char *path, size_t size)
{
	return below_home("XDG_CONFIG_HOME", ".config", path, size);
}

int user_state_directory(char *path, size_t size)
{
	return below_home("XDG_STATE_HOME", ".local/state", path, size);
}
