#include "priv/saved-sysctls.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define UNFINISHED SAVED_SYSCTLS_FILE ".new"

static void write_path(const struct saved_sysctls *saved, const char *name, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s", saved->directory, name);
}

/* One digit of ROOT/FAMILY/conf/INTERFACE/KEY, opened with flags. */
static int open_switch(const struct saved_sysctls *saved, const char *family,
	const char *interface_name, const char *key, int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s/conf/%s/%s", saved->root, family, interface_name, key);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int read_switch(const struct saved_sysctls *saved, const char *family,
	const char *interface_name, const char *key, char *ret_value)
{
	cleanup_fd int fd = open_switch(saved, family, interface_name, key, O_RDONLY);
	ssize_t size;

	if (fd < 0)
		return fd;
	size = pread(fd, ret_value, 1, 0);
	/* ENOENT: the interface has gone since the file was opened. */
	if (size < 0)
		return -errno;
	return size == 1 ? 0 : -EIO;
}

static int write_switch(const struct saved_sysctls *saved, const char *family,
	const char *interface_name, const char *key, char value)
{
	cleanup_fd int fd = open_switch(saved, family, interface_name, key, O_WRONLY);
	ssize_t size;

	if (fd < 0)
		return fd;
	size = pwrite(fd, &value, 1, 0);
	if (size < 0)
		return -errno;
	return size == 1 ? 0 : -EIO;
}

static bool is_value(const char *text)
{
	return strlen(text) == 1 && *text >= '0' && *text <= '9';
}

/* The kernel lets no name of an interface have a slash or be one of the dots. */
static bool is_plain(const char *name)
{
	return !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool read_line(const char *line, struct saved_sysctl *ret_switch)
{
	struct saved_sysctl one = {.wanted = false};
	char before[8], ours[8];

	if (sscanf(line, "%4s %15s %19s %7s %7s", one.family, one.interface_name, one.key, before,
		    ours) != 5 ||
		(strcmp(one.family, "ipv4") != 0 && strcmp(one.family, "ipv6") != 0) ||
		!is_plain(one.interface_name) || !is_plain(one.key) || !is_value(before) ||
		!is_value(ours))
		return false;
	one.before = *before;
	one.ours = *ours;
	*ret_switch = one;
	return true;
}

/* Who owns the file decides what is written into the kernel. */
static bool is_roots_alone(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid() &&
	       !(status.st_mode & (S_IWGRP | S_IWOTH));
}

static int read_lines(struct saved_sysctls *saved, FILE *file)
{
	char line[128];

	while (fgets(line, sizeof(line), file)) {
		if (saved->count == SAVED_SYSCTLS_MAX ||
			!read_line(line, &saved->switches[saved->count]))
			return -EBADMSG;
		saved->count++;
	}
	return 0;
}

int saved_sysctls_load(struct saved_sysctls *saved)
{
	cleanup_file FILE *file = NULL;
	cleanup_fd int fd = -1;
	char path[PATH_MAX];

	saved->switches = calloc(SAVED_SYSCTLS_MAX, sizeof(*saved->switches));
	if (!saved->switches)
		return -ENOMEM;
	write_path(saved, SAVED_SYSCTLS_FILE, path);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!is_roots_alone(fd))
		return -EPERM;
	file = fdopen(fd, "r");
	if (!file)
		return -errno;
	take_fd(&fd);
	return read_lines(saved, file);
}

void saved_sysctls_done(struct saved_sysctls *saved)
{
	free(saved->switches);
	saved->switches = NULL;
	saved->count = 0;
}

static int write_lines(const struct saved_sysctls *saved, const char *path)
{
	cleanup_file FILE *file = fopen(path, "we");

	if (!file)
		return -errno;
	for (size_t i = 0; i < saved->count; i++) {
		const struct saved_sysctl *one = &saved->switches[i];

		fprintf(file, "%s %s %s %c %c\n", one->family, one->interface_name, one->key,
			one->before, one->ours);
	}
	return fflush(file) == 0 && !ferror(file) ? 0 : -EIO;
}

/* Memory of the kernel's holds it until a reboot: it need not be on a disk. */
static int store(const struct saved_sysctls *saved)
{
	char path[PATH_MAX], unfinished[PATH_MAX];
	int error;

	write_path(saved, SAVED_SYSCTLS_FILE, path);
	write_path(saved, UNFINISHED, unfinished);
	if (saved->count == 0)
		return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	error = write_lines(saved, unfinished);
	if (error)
		return error;
	return rename(unfinished, path) < 0 ? -errno : 0;
}

static struct saved_sysctl *find(const struct saved_sysctls *saved, const char *family,
	const char *interface_name, const char *key)
{
	for (size_t i = 0; i < saved->count; i++) {
		struct saved_sysctl *one = &saved->switches[i];

		if (strcmp(one->family, family) == 0 && strcmp(one->key, key) == 0 &&
			strcmp(one->interface_name, interface_name) == 0)
			return one;
	}
	return NULL;
}

static int add(struct saved_sysctls *saved, const char *family, const char *interface_name,
	const char *key, char before, char ours)
{
	struct saved_sysctl one = {.before = before, .ours = ours, .wanted = true};
	int error = text_copy(one.family, sizeof(one.family), family);

	if (!error)
		error = text_copy(one.interface_name, sizeof(one.interface_name), interface_name);
	if (!error)
		error = text_copy(one.key, sizeof(one.key), key);
	if (!error && saved->count == SAVED_SYSCTLS_MAX)
		error = -ENOSPC;
	if (error)
		return error;
	saved->switches[saved->count++] = one;
	error = store(saved);
	if (error)
		saved->count--;
	return error;
}

int saved_sysctls_set(struct saved_sysctls *saved, const char *family, const char *interface_name,
	const char *key, char value)
{
	struct saved_sysctl *known = find(saved, family, interface_name, key);
	char current;
	int error = read_switch(saved, family, interface_name, key, &current);

	if (error)
		return error;
	if (known)
		known->wanted = true;
	/* A redundant write is an event for everybody who watches. */
	if (current == value)
		return 0;
	if (!known) {
		error = add(saved, family, interface_name, key, current, value);
		if (error)
			return error;
	}
	return write_switch(saved, family, interface_name, key, value);
}

/*
 * Whoever turned it on everywhere after us (Docker does) turned this one on as well, which cannot
 * be seen in it.
 */
static bool is_on_everywhere(const struct saved_sysctls *saved, const struct saved_sysctl *one)
{
	char all;

	return strcmp(one->key, "forwarding") == 0 && strcmp(one->interface_name, "all") != 0 &&
	       read_switch(saved, one->family, "all", one->key, &all) == 0 && all == '1';
}

static int put_back(const struct saved_sysctls *saved, const struct saved_sysctl *one)
{
	char current;
	int error = read_switch(saved, one->family, one->interface_name, one->key, &current);

	/* A link that has gone took its switches along. */
	if (error)
		return error == -ENOENT ? 0 : error;
	if (current != one->ours || is_on_everywhere(saved, one))
		return 0;
	return write_switch(saved, one->family, one->interface_name, one->key, one->before);
}

int saved_sysctls_restore(struct saved_sysctls *saved)
{
	size_t kept = 0, before = saved->count;
	int error = 0;

	for (size_t i = saved->count; i > 0; i--) {
		struct saved_sysctl *one = &saved->switches[i - 1];
		int failed = one->wanted ? 0 : put_back(saved, one);

		if (failed) {
			one->wanted = true;
			error = failed;
		}
	}
	for (size_t i = 0; i < saved->count; i++)
		if (saved->switches[i].wanted)
			saved->switches[kept++] = saved->switches[i];
	saved->count = kept;
	if (kept != before && store(saved) < 0 && !error)
		error = -EIO;
	return error;
}
