/*
 * The host's name servers, as /etc/resolv.conf names them, followed through every way it changes:
 * rewritten, replaced, a link that is turned elsewhere, a directory that comes later. dnsmasq
 * itself misses some of these, and does not start where the link leads nowhere.
 */
#include "broker/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define CHANGES                                                                                    \
	(IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF |   \
		IN_MOVE_SELF | IN_ONLYDIR)
/* A file is often emptied first and written then. */
#define DEBOUNCE_MS 100
/* As the kernel follows links no further than 40 (path_resolution(7)). */
#define LINKS_MAX 40

struct resolvers_watch {
	struct platform *platform;
	int inotify; /* made anew after each change: the way may be another */
	sd_event_source *source;
	struct platform_timer *timer;
};

/* Watches the directory of path, or, while there is none, the next one above it. */
static void watch_directory(struct resolvers_watch *watch, const char *path)
{
	char directory[PATH_MAX];
	char *slash;

	snprintf(directory, sizeof(directory), "%s", path);
	while ((slash = strrchr(directory, '/'))) {
		slash[slash == directory ? 1 : 0] = '\0';
		if (inotify_add_watch(watch->inotify, directory, CHANGES) >= 0 ||
			slash == directory)
			return;
	}
}

/* Where the link at path leads to, into path. False when it is none. */
static bool follow(char path[PATH_MAX])
{
	char target[PATH_MAX], joined[2 * PATH_MAX];
	ssize_t length = readlink(path, target, sizeof(target) - 1);
	int directory_length = (int)(strrchr(path, '/') - path) + 1;

	if (length <= 0)
		return false;
	target[length] = '\0';
	snprintf(joined, sizeof(joined), "%.*s%s", *target == '/' ? 0 : directory_length, path,
		target);
	return text_copy(path, PATH_MAX, joined) == 0;
}

static void watch_way(struct resolvers_watch *watch)
{
	char path[PATH_MAX] = RESOLV_CONF;

	watch_directory(watch, path);
	for (int links = 0; links < LINKS_MAX && follow(path); links++)
		watch_directory(watch, path);
}

static int handle_change(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	_Alignas(struct inotify_event) char ignored[4096];
	struct resolvers_watch *watch = userdata;

	while (read(fd, ignored, sizeof(ignored)) > 0)
		;
	platform_timer_start(watch->timer, DEBOUNCE_MS);
	return 0;
}

static int start_watch(struct resolvers_watch *watch)
{
	int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int error;

	if (inotify < 0)
		return -errno;
	watch->source = sd_event_source_disable_unref(watch->source);
	fd_close(watch->inotify);
	watch->inotify = inotify;
	watch_way(watch);
	error = sd_event_add_io(
		watch->platform->event, &watch->source, inotify, EPOLLIN, handle_change, watch);
	return error < 0 ? error : 0;
}

static void handle_timer(void *context)
{
	struct resolvers_watch *watch = context;
	struct platform *platform = watch->platform;

	/* First, so that a change while it is read is seen. */
	if (start_watch(watch) < 0)
		platform_timer_start(watch->timer, DEBOUNCE_MS);
	platform->events->resolvers_changed(platform->context);
}

int platform_read_resolvers(
	struct platform *platform, char ret_text[PLATFORM_RESOLVERS_SIZE], size_t *ret_size)
{
	cleanup_fd int fd = open(RESOLV_CONF, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t size;

	if (fd < 0)
		return -errno;
	size = read(fd, ret_text, PLATFORM_RESOLVERS_SIZE);
	if (size < 0)
		return -errno;
	*ret_size = (size_t)size;
	return 0;
}

void resolvers_watch_free(struct resolvers_watch *watch)
{
	if (!watch)
		return;
	platform_timer_free(watch->timer);
	sd_event_source_disable_unref(watch->source);
	fd_close(watch->inotify);
	free(watch);
}
DEFINE_CLEANUP(struct resolvers_watch, resolvers_watch_free)

int resolvers_watch_new(struct platform *platform, struct resolvers_watch **ret_watch)
{
	cleanup_with(resolvers_watch_free) struct resolvers_watch *watch =
		calloc(1, sizeof(*watch));
	int error;

	if (!watch)
		return -ENOMEM;
	watch->platform = platform;
	watch->inotify = -1;
	error = platform_timer_new(platform, handle_timer, watch, &watch->timer);
	if (!error)
		error = start_watch(watch);
	if (error)
		return error;
	*ret_watch = take_ptr(watch);
	return 0;
}
