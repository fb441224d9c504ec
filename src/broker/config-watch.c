#include "broker/config-watch.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <time.h>

/* Editors and package managers write several files, or one in several steps. */
#define QUIET_US     UINT64_C(200000)
#define NOT_QUIET_US UINT64_C(2000000) /* for something that never ceases to write */

#define CHANGES                                                                                    \
	(IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |        \
		IN_DELETE_SELF | IN_MOVE_SELF)

struct config_watch {
	const char *directory;
	struct name_service *names;
	config_watch_done *done;
	void *context;
	sd_event *event;
	int inotify; /* made anew for every reading: what is to be watched may be another */
	int parent;  /* the watch of what the directory is in */
	sd_event_source *changes;
	sd_event_source *quiet;
	uint64_t first_change_us; /* 0: none waits */
	struct config *config;    /* being read; NULL: none */
	bool again;               /* something changed meanwhile */
};

static int watch_path(struct config_watch *watch, const char *folder, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s%s%s", watch->directory, folder, name);
	/* What is not there, its directory tells of. */
	return inotify_add_watch(watch->inotify, path, CHANGES);
}

/* Where the last part of the directory's path begins. */
static size_t base_offset(const char *directory)
{
	size_t length = strlen(directory);

	while (length > 1 && directory[length - 1] == '/')
		length--;
	while (length > 0 && directory[length - 1] != '/')
		length--;
	return length;
}

/* For a directory that comes later, or is a link that will point elsewhere. */
static int watch_parent(struct config_watch *watch)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%.*s", (int)base_offset(watch->directory), watch->directory);
	return inotify_add_watch(watch->inotify, path, CHANGES);
}

/* A file that is a link to elsewhere changes there. */
static void watch_drop_ins(struct config_watch *watch)
{
	char path[PATH_MAX];
	const struct dirent *entry;
	DIR *directory;

	snprintf(path, sizeof(path), "%s/networks.d", watch->directory);
	directory = opendir(path);
	if (!directory)
		return;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			watch_path(watch, "/networks.d/", entry->d_name);
	closedir(directory);
}

static bool is_relevant(const struct config_watch *watch, const struct inotify_event *event)
{
	const char *base = watch->directory + base_offset(watch->directory);
	size_t length = strcspn(base, "/");

	if (event->mask & IN_IGNORED)
		return false;
	if (event->wd != watch->parent || event->mask & IN_Q_OVERFLOW)
		return true;
	return event->len > 0 && strlen(event->name) == length &&
	       strncmp(event->name, base, length) == 0;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void note_change(struct config_watch *watch)
{
	uint64_t now = now_us();

	if (watch->first_change_us == 0)
		watch->first_change_us = now;
	if (now - watch->first_change_us > NOT_QUIET_US)
		return;
	sd_event_source_set_time_relative(watch->quiet, QUIET_US);
	sd_event_source_set_enabled(watch->quiet, SD_EVENT_ONESHOT);
}

static int handle_changes(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	_Alignas(struct inotify_event) char buffer[4096];
	struct config_watch *watch = userdata;
	bool relevant = false;
	ssize_t size = read(fd, buffer, sizeof(buffer));

	for (ssize_t at = 0; at < size;) {
		const struct inotify_event *event = (const void *)(buffer + at);

		relevant = relevant || is_relevant(watch, event);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	if (relevant)
		note_change(watch);
	return 0;
}

/* Watches what there is now. Before it is read: a change in between is seen. */
static void watch_files(struct config_watch *watch)
{
	int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int error = inotify < 0 ? -errno : 0;

	if (error) {
		log_warn("main",
			"the configuration cannot be watched: %s; SIGHUP has it read again",
			strerror(-error));
		return;
	}
	watch->changes = sd_event_source_disable_unref(watch->changes);
	fd_close(watch->inotify);
	watch->inotify = inotify;
	watch->parent = watch_parent(watch);
	watch_path(watch, "", "");
	watch_path(watch, "/", "networks.d");
	watch_path(watch, "/", "networks.json");
	watch_drop_ins(watch);
	if (watch->event)
		sd_event_add_io(watch->event, &watch->changes, watch->inotify, EPOLLIN,
			handle_changes, watch);
}

static void log_mistake(void *context, const char *network, const char *mistake)
{
	if (network)
		log_error("main", "network %s is out of service: %s", network, mistake);
	else
		log_error("main", "out of service: %s", mistake);
}

static struct config *read_config(const char *directory)
{
	struct config *config = malloc(sizeof(*config));

	if (!config)
		return NULL;
	config_load(config, directory);
	config_visit_mistakes(config, log_mistake, NULL);
	return config;
}

static void handle_resolved(void *context)
{
	struct config_watch *watch = context;
	bool again = watch->again;

	watch->again = false;
	log_info("main", "the configuration was read again");
	watch->done(watch->context, take_ptr(watch->config));
	if (again)
		config_watch_reload(watch);
}

void config_watch_reload(struct config_watch *watch)
{
	if (watch->config) {
		watch->again = true;
		return;
	}
	watch->first_change_us = 0;
	sd_event_source_set_enabled(watch->quiet, SD_EVENT_OFF);
	watch_files(watch);
	watch->config = read_config(watch->directory);
	if (!watch->config) {
		log_error("main", "the configuration could not be read again: memory is out");
		return;
	}
	name_service_resolve_later(
		watch->names, watch->event, watch->config, handle_resolved, watch);
}

static int handle_quiet(sd_event_source *source, uint64_t time_us, void *userdata)
{
	config_watch_reload(userdata);
	return 0;
}

int config_watch_new(const char *directory, struct name_service *names,
	struct config_watch **ret_watch, struct config **ret_config)
{
	struct config_watch *watch = calloc(1, sizeof(*watch));
	struct config *config;

	if (!watch)
		return -ENOMEM;
	watch->directory = directory;
	watch->names = names;
	watch->inotify = -1;
	watch_files(watch);
	config = read_config(directory);
	if (!config) {
		config_watch_free(watch);
		return -ENOMEM;
	}
	name_service_resolve(names, config);
	*ret_watch = watch;
	*ret_config = config;
	return 0;
}

int config_watch_start(
	struct config_watch *watch, sd_event *event, config_watch_done *done, void *context)
{
	int error = sd_event_add_time_relative(
		event, &watch->quiet, CLOCK_MONOTONIC, 0, 0, handle_quiet, watch);

	watch->event = event;
	watch->done = done;
	watch->context = context;
	if (error >= 0)
		error = sd_event_source_set_enabled(watch->quiet, SD_EVENT_OFF);
	if (error >= 0 && watch->inotify >= 0)
		error = sd_event_add_io(
			event, &watch->changes, watch->inotify, EPOLLIN, handle_changes, watch);
	return error < 0 ? error : 0;
}

void config_watch_free(struct config_watch *watch)
{
	if (!watch)
		return;
	sd_event_source_disable_unref(watch->changes);
	sd_event_source_disable_unref(watch->quiet);
	fd_close(watch->inotify);
	config_free(watch->config);
	free(watch);
}
