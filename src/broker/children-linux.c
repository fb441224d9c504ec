/* dnsmasq processes: their pidfds and their logs. */
#include "broker/linux.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#define LINE_SIZE 512

struct child {
	struct child_watch *watch;
	struct child *next;
	char network[NETWORK_NAME_SIZE];
	int pidfd;
	int log; /* -1: an earlier front had it, or it has ended */
	sd_event_source *pidfd_source;
	sd_event_source *log_source;
	char line[LINE_SIZE]; /* what came of the next line */
	size_t line_size;
};

struct child_watch {
	struct platform *platform;
	struct child *children;
};

int child_watch_new(struct platform *platform, struct child_watch **ret_watch)
{
	struct child_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return -ENOMEM;
	watch->platform = platform;
	*ret_watch = watch;
	return 0;
}

static void stop_log(struct child *child)
{
	child->log_source = sd_event_source_disable_unref(child->log_source);
	fd_close(take_fd(&child->log));
}

static void free_child(struct child *child)
{
	stop_log(child);
	sd_event_source_disable_unref(child->pidfd_source);
	fd_close(child->pidfd);
	free(child);
}
DEFINE_CLEANUP(struct child, free_child)

void child_watch_free(struct child_watch *watch)
{
	if (!watch)
		return;
	while (watch->children) {
		struct child *child = watch->children;

		watch->children = child->next;
		free_child(child);
	}
	free(watch);
}

static struct child *find_child(const struct child_watch *watch, const char *network)
{
	for (struct child *child = watch->children; child; child = child->next)
		if (strcmp(child->network, network) == 0)
			return child;
	return NULL;
}

static void unlink_child(struct child *child)
{
	struct child **link = &child->watch->children;

	while (*link != child)
		link = &(*link)->next;
	*link = child->next;
}

void child_watch_remove(struct child_watch *watch, const char *network)
{
	struct child *child = find_child(watch, network);

	if (!child)
		return;
	unlink_child(child);
	free_child(child);
}

int child_watch_signal(struct child_watch *watch, const char *network, int number)
{
	const struct child *child = find_child(watch, network);

	if (!child)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, child->pidfd, number, NULL, 0) < 0 ? -errno : 0;
}

/*
 * Takes the first whole line out of what came; a line that fills the buffer is cut there. The copy
 * is for the listener, who may free the child.
 */
static bool take_line(struct child *child, char line[LINE_SIZE])
{
	char *newline = memchr(child->line, '\n', child->line_size);
	size_t length = newline ? (size_t)(newline - child->line) : child->line_size;
	size_t taken = newline ? length + 1 : length;

	if (!newline && child->line_size < LINE_SIZE - 1)
		return false;
	memcpy(line, child->line, length);
	line[length] = '\0';
	memmove(child->line, child->line + taken, child->line_size - taken);
	child->line_size -= taken;
	return true;
}

/* Tells every whole line. False when a listener had the child removed. */
static bool tell_lines(struct child *child)
{
	struct child_watch *watch = child->watch;
	struct platform *platform = watch->platform;
	char network[NETWORK_NAME_SIZE];
	char line[LINE_SIZE];

	memcpy(network, child->network, sizeof(network));
	while (take_line(child, line)) {
		platform->events->dhcp_line(platform->context, network, line);
		if (find_child(watch, network) != child)
			return false;
	}
	return true;
}

/* Reads once. Returns 1 when there was something, 0 when not now, -ENODEV when the child has been
 * removed by a listener, another negative errno at the log's end. */
static int read_log(struct child *child)
{
	ssize_t size =
		read(child->log, child->line + child->line_size, LINE_SIZE - 1 - child->line_size);

	if (size < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (size == 0)
		return -EPIPE;
	child->line_size += (size_t)size;
	return tell_lines(child) ? 1 : -ENODEV;
}

static int handle_log(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct child *child = userdata;
	int result = read_log(child);

	/* The end of the process is its pidfd's to tell. */
	if (result < 0 && result != -ENODEV)
		stop_log(child);
	return 0;
}

static int handle_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct child *child = userdata;
	struct platform *platform = child->watch->platform;
	char network[NETWORK_NAME_SIZE];
	int result = 1;

	/* Its last words explain its end. */
	while (child->log >= 0 && result > 0)
		result = read_log(child);
	if (result == -ENODEV)
		return 0;
	memcpy(network, child->network, sizeof(network));
	unlink_child(child);
	free_child(child);
	platform->events->dhcp_ended(platform->context, network);
	return 0;
}

static int watch_child(struct child *child)
{
	sd_event *event = child->watch->platform->event;
	int error = sd_event_add_io(
		event, &child->pidfd_source, child->pidfd, EPOLLIN, handle_end, child);

	if (error >= 0 && child->log >= 0)
		error = sd_event_add_io(
			event, &child->log_source, child->log, EPOLLIN, handle_log, child);
	return error < 0 ? error : 0;
}

int child_watch_add(struct child_watch *watch, const char *network, int pidfd, int log)
{
	cleanup_fd int owned_pidfd = pidfd;
	cleanup_fd int owned_log = log;
	cleanup_with(free_child) struct child *child = calloc(1, sizeof(*child));
	int error;

	if (!child)
		return -ENOMEM;
	child_watch_remove(watch, network);
	child->watch = watch;
	child->pidfd = take_fd(&owned_pidfd);
	child->log = take_fd(&owned_log);
	error = text_copy(child->network, sizeof(child->network), network);
	if (!error)
		error = watch_child(child);
	if (error)
		return error;
	child->next = watch->children;
	watch->children = child;
	(void)take_ptr(child);
	return 0;
}
