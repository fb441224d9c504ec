/* Files of the configuration; what they mean is config.c's business. */
#include "broker/config.h"

#include "base/cleanup.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static void report_unreadable(struct config *config, const char *file_name, int error)
{
	const char *reason = strerror(-error);

	if (config->broken_count == CONFIG_BROKEN_MAX)
		return;
	if (error == -EFBIG)
		reason = "longer than 256 KiB";
	else if (error == -EINVAL)
		reason = "no regular file";
	snprintf(config->broken[config->broken_count++], CONFIG_ERROR_SIZE,
		"%s: could not be read: %s", file_name, reason);
}

static_assert(CONFIG_FILE_MAX == 256u << 10, "report_unreadable() says so");

/* The whole file, or negative errno; *ret_bytes is to be freed. */
static ssize_t read_file(int directory, const char *file_name, char **ret_bytes)
{
	cleanup_fd int fd = openat(directory, file_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_free char *bytes = NULL;
	size_t size = 0;
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	bytes = malloc(CONFIG_FILE_MAX + 1);
	if (!bytes)
		return -ENOMEM;
	for (;;) {
		ssize_t got = read(fd, bytes + size, CONFIG_FILE_MAX + 1 - size);

		if (got < 0)
			return -errno;
		size += (size_t)got;
		if (size > CONFIG_FILE_MAX)
			return -EFBIG;
		if (got == 0)
			break;
	}
	*ret_bytes = take_ptr(bytes);
	return (ssize_t)size;
}

static void load_file(struct config *config, int directory, const char *file_name)
{
	cleanup_free char *bytes = NULL;
	ssize_t size = read_file(directory, file_name, &bytes);

	if (size == -ENOENT)
		return;
	if (size < 0)
		report_unreadable(config, file_name, (int)size);
	else
		config_parse(config, file_name, bytes, (size_t)size);
}

static int is_json_file(const struct dirent *entry)
{
	const char *suffix = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && suffix && strcmp(suffix, ".json") == 0;
}

static void load_drop_ins(struct config *config, int directory)
{
	struct dirent **entries;
	int count = scandirat(directory, "networks.d", &entries, is_json_file, alphasort);

	if (count < 0) {
		int error = -errno;

		if (error != -ENOENT)
			report_unreadable(config, "networks.d", error);
		return;
	}
	for (int i = 0; i < count; i++) {
		char file_name[sizeof("networks.d/") + sizeof(entries[i]->d_name)];

		snprintf(file_name, sizeof(file_name), "networks.d/%s", entries[i]->d_name);
		load_file(config, directory, file_name);
		free(entries[i]);
	}
	free(entries);
}

void config_load(struct config *config, const char *directory)
{
	cleanup_fd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	config_init(config);
	if (fd < 0) {
		int error = -errno;

		if (error != -ENOENT)
			report_unreadable(config, directory, error);
		return;
	}
	load_file(config, fd, "networks.json");
	load_drop_ins(config, fd);
	config_check_overlaps(config);
}
