#include "broker/setup-files.h"

#include "base/cleanup.h"
#include "broker/durable.h"
#include "broker/setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define INSTANCE_FILE   "instance"
#define INSTANCE_DIGITS 8

int setup_fail(char *error, int result, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error, SETUP_ERROR_SIZE, format, arguments);
	va_end(arguments);
	return result;
}

/* Makes a directory if there is none. Returns 1 when it was made, 0 when it was there; -ESTALE when
 * it was, and went. */
static int open_directory(int parent, const char *path, int *ret_fd)
{
	cleanup_fd int fd = -1;
	bool made = mkdirat(parent, path, 0700) == 0;

	if (!made && errno != EEXIST)
		return -errno;
	fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESTALE : -errno;
	*ret_fd = take_fd(&fd);
	return made;
}

static int own_directory(int fd, uid_t uid, gid_t gid, mode_t mode)
{
	return fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0 ? -errno : 0;
}

static int make_private(int parent, const char *name, uid_t uid, gid_t gid)
{
	cleanup_fd int fd = -1;
	int result = open_directory(parent, name, &fd);

	return result < 0 ? result : own_directory(fd, uid, gid, 0700);
}

static int fail_directory(char *error, int result, const char *path)
{
	return setup_fail(error, result, "directory %s could not be prepared: %s%s", path,
		strerror(-result), result == -ENOENT ? " (the directory above it must exist)" : "");
}

int setup_open_runtime_directory(const char *path, int *ret_fd, char *error)
{
	cleanup_fd int fd = -1;
	struct stat status;
	int result = open_directory(AT_FDCWD, path, &fd);

	if (result < 0)
		return fail_directory(error, result, path);
	if (fstat(fd, &status) < 0)
		return fail_directory(error, -errno, path);
	if (status.st_uid != geteuid() || status.st_mode & (S_IWGRP | S_IWOTH))
		return setup_fail(error, -EPERM,
			"runtime directory %s must belong to %s and be writable by nobody else; "
			"choose one of the broker's own",
			path, geteuid() == 0 ? "root" : "you");
	*ret_fd = take_fd(&fd);
	return 0;
}

int setup_fill_runtime_directory(int fd, uid_t uid, gid_t gid, const char *path, char *error)
{
	/* An ordinary user's broker is for nobody else. */
	int result = own_directory(fd, geteuid(), getegid(), geteuid() == 0 ? 0755 : 0700);

	if (!result)
		result = make_private(fd, "networks", uid, gid);
	if (!result)
		result = make_private(fd, "interfaces", uid, gid);
	if (!result)
		result = make_private(fd, "forwards", uid, gid);
	return result ? fail_directory(error, result, path) : 0;
}

static bool is_empty(int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	bool empty = true;

	if (!stream) {
		fd_close(fd);
		return false;
	}
	for (const struct dirent *entry; (entry = readdir(stream));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			empty = false;
	closedir(stream);
	return empty;
}

/* Giving a directory away must not give away what others have put there. */
static bool is_ours(int fd, uid_t uid)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return false;
	return status.st_uid == uid || is_empty(fd) ||
	       faccessat(fd, INSTANCE_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int setup_state_directory(const char *path, uid_t uid, gid_t gid, int *ret_fd, char *error)
{
	cleanup_fd int fd = -1;
	int result = open_directory(AT_FDCWD, path, &fd);

	if (result < 0)
		return fail_directory(error, result, path);
	if (!is_ours(fd, uid))
		return setup_fail(error, -EPERM,
			"state directory %s has other files in it; choose one of the broker's own",
			path);
	result = own_directory(fd, uid, gid, 0700);
	if (result)
		return fail_directory(error, result, path);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int parse_instance(const char *text, uint32_t *ret_instance)
{
	char *end;
	unsigned long value;

	if (strspn(text, "0123456789abcdef") != INSTANCE_DIGITS)
		return -EBADMSG;
	value = strtoul(text, &end, 16);
	if (strcmp(end, "\n") != 0)
		return -EBADMSG;
	*ret_instance = (uint32_t)value;
	return 0;
}

static int read_instance_file(int state, uint32_t *ret_instance)
{
	cleanup_fd int fd =
		openat(state, INSTANCE_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char text[INSTANCE_DIGITS + 3] = "";

	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text) - 1) < 0)
		return -errno;
	return parse_instance(text, ret_instance);
}

static int draw_instance(int state, uint32_t *ret_instance)
{
	char text[INSTANCE_DIGITS + 2];
	uint32_t instance;
	int error;

	if (getrandom(&instance, sizeof(instance), 0) != sizeof(instance))
		return -EIO;
	snprintf(text, sizeof(text), "%0*x\n", INSTANCE_DIGITS, instance);
	error = durable_write(state, INSTANCE_FILE, text, strlen(text), 0644);
	if (!error)
		*ret_instance = instance;
	return error;
}

int setup_read_instance(int state, uint32_t *ret_instance, char *error)
{
	int result = read_instance_file(state, ret_instance);

	if (result == -ENOENT)
		result = draw_instance(state, ret_instance);
	if (result == -EBADMSG)
		return setup_fail(error, result,
			"the file instance in the state directory is damaged; it holds 8 "
			"hexadecimal digits. Remove it if no network of the broker's is left");
	if (result)
		return setup_fail(error, result, "the file instance in the state directory: %s",
			strerror(-result));
	return 0;
}
