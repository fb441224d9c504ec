#include "broker/durable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int write_all(int fd, const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t written = write(fd, bytes, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		bytes += written;
		size -= (size_t)written;
	}
	return 0;
}

struct content {
	const char *bytes;
	size_t size;
	unsigned int mode;
	bool survives_power_cut;
};

static int write_new_file(int directory, const char *name, const struct content *content)
{
	cleanup_fd int fd = openat(directory, name,
		O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, content->mode);
	int error;

	if (fd < 0)
		return -errno;
	/* The mode that was asked for, whatever the umask. */
	if (fchmod(fd, content->mode) < 0)
		return -errno;
	error = write_all(fd, content->bytes, content->size);
	if (error)
		return error;
	return content->survives_power_cut && fsync(fd) < 0 ? -errno : 0;
}

static int join_name(char joined[DURABLE_NAME_SIZE], const char *name, const char *suffix)
{
	int length = snprintf(joined, DURABLE_NAME_SIZE, "%s%s", name, suffix);

	return length < DURABLE_NAME_SIZE ? 0 : -ENAMETOOLONG;
}

static int replace(int directory, const char *name, const struct content *content)
{
	char unfinished[DURABLE_NAME_SIZE];
	int error = join_name(unfinished, name, DURABLE_UNFINISHED);

	if (error)
		return error;
	unlinkat(directory, unfinished, 0);
	error = write_new_file(directory, unfinished, content);
	if (!error && renameat(directory, unfinished, directory, name) < 0)
		error = -errno;
	if (error) {
		unlinkat(directory, unfinished, 0);
		return error;
	}
	return content->survives_power_cut && fsync(directory) < 0 ? -errno : 0;
}

int durable_write(
	int directory, const char *name, const char *bytes, size_t size, unsigned int mode)
{
	return replace(directory, name, &(struct content){bytes, size, mode, true});
}

int durable_replace(
	int directory, const char *name, const char *bytes, size_t size, unsigned int mode)
{
	return replace(directory, name, &(struct content){bytes, size, mode, false});
}

static int replace_json(
	int directory, const char *name, const json_t *value, bool survives_power_cut)
{
	cleanup_free char *text = json_dumps(value, JSON_COMPACT);

	if (!text)
		return -ENOMEM;
	return replace(
		directory, name, &(struct content){text, strlen(text), 0600, survives_power_cut});
}

int durable_write_json(int directory, const char *name, const json_t *value)
{
	return replace_json(directory, name, value, true);
}

int durable_replace_json(int directory, const char *name, const json_t *value)
{
	return replace_json(directory, name, value, false);
}

int durable_read_json(int directory, const char *name, json_t **ret_value)
{
	cleanup_fd int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	cleanup_json json_t *value = NULL;
	struct stat status;

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 || fstat(fd, &status) < 0)
		return errno == ELOOP ? -EBADMSG : -errno;
	if (!S_ISREG(status.st_mode) || status.st_size > DURABLE_FILE_MAX)
		return -EBADMSG;
	value = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(value))
		return -EBADMSG;
	*ret_value = take_ptr(value);
	return 0;
}

int durable_set_aside(int directory, const char *name)
{
	char aside[DURABLE_NAME_SIZE];
	int error = join_name(aside, name, ".corrupt");

	if (error)
		return error;
	return renameat(directory, name, directory, aside) < 0 ? -errno : 0;
}

int durable_remove(int directory, const char *name)
{
	if (unlinkat(directory, name, 0) < 0)
		return errno == ENOENT ? 0 : -errno;
	return fsync(directory) < 0 ? -errno : 0;
}

int durable_drop(int directory, const char *name)
{
	return unlinkat(directory, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int durable_open_below(const char *parent, const char *name, int *ret_fd)
{
	cleanup_fd int parent_fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int fd = -1;

	if (parent_fd < 0)
		return -errno;
	if (mkdirat(parent_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

bool durable_split_name(const char *file, const char *suffix, char *stem, size_t size)
{
	size_t length = strlen(file), suffix_length = strlen(suffix);

	if (length <= suffix_length || length - suffix_length >= size ||
		strcmp(file + length - suffix_length, suffix) != 0)
		return false;
	memcpy(stem, file, length - suffix_length);
	stem[length - suffix_length] = '\0';
	return true;
}

int durable_visit(int directory, int (*visit)(void *context, const char *file), void *context)
{
	/* A descriptor of its own: readdir() moves the position of the one it is given. */
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	int result = stream ? 0 : -errno;

	if (!stream) {
		fd_close(fd);
		return result;
	}
	for (struct dirent *entry; result >= 0 && (entry = readdir(stream));) {
		int removed = visit(context, entry->d_name);

		result = removed < 0 ? removed : result + removed;
	}
	closedir(stream);
	return result;
}
