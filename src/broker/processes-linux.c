/* Processes for whose life interfaces are there. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netlink/socket.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

/* <linux/magic.h> of older systems lacks it. */
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446
#endif

struct process {
	struct process_watch *watch;
	struct process *next;
	uint32_t number; /* the interface's */
	int pidfd;
	sd_event_source *source;
};

struct process_watch {
	struct platform *platform;
	struct process *processes;
};

/*
 * From Linux 6.9 on a pidfd has an inode number that no other process of this boot gets. Before,
 * it says nothing, and a later process of the same pid passes for the earlier.
 */
static int open_process(pid_t pid, uint64_t *ret_id)
{
	cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct statfs filesystem;
	struct stat status;

	if (pidfd < 0)
		return errno == EINVAL ? -ESRCH : -errno;
	if (fstat(pidfd, &status) < 0 || fstatfs(pidfd, &filesystem) < 0)
		return -errno;
	*ret_id = filesystem.f_type == PID_FS_MAGIC ? status.st_ino : 0;
	return take_fd(&pidfd);
}

int platform_identify_process(
	struct platform *platform, pid_t pid, struct platform_process *ret_process)
{
	struct platform_process process = {.pid = pid};
	cleanup_fd int pidfd = open_process(pid, &process.id);

	if (pidfd < 0)
		return pidfd;
	*ret_process = process;
	return 0;
}

DEFINE_CLEANUP(struct nl_sock, nl_socket_free)

/* A system's broker may not look at others' processes. Its clients are where it is, as a rule. */
bool platform_shows_names(struct platform *platform, pid_t pid)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = NULL;
	cleanup_fd int namespace = -1;
	struct stat ours, theirs;
	char path[32];

	if (!platform->is_rootless)
		return true;
	if (linux_open_routes(platform, &socket) < 0)
		return false;
	namespace = ioctl(nl_socket_get_fd(socket), SIOCGSKNS);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	return namespace >= 0 && fstat(namespace, &ours) == 0 && stat(path, &theirs) == 0 &&
	       ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static void free_process(struct process *process)
{
	sd_event_source_disable_unref(process->source);
	fd_close(process->pidfd);
	free(process);
}
DEFINE_CLEANUP(struct process, free_process)

void platform_unwatch_process(struct platform *platform, uint32_t number)
{
	struct process **link = &platform->processes->processes;

	while (*link) {
		struct process *process = *link;

		if (process->number != number) {
			link = &process->next;
			continue;
		}
		*link = process->next;
		free_process(process);
	}
}

static int handle_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	const struct process *process = userdata;
	struct platform *platform = process->watch->platform;
	uint32_t number = process->number;

	platform_unwatch_process(platform, number);
	platform->events->process_ended(platform->context, number);
	return 0;
}

int platform_watch_process(
	struct platform *platform, uint32_t number, const struct platform_process *wanted)
{
	cleanup_with(free_process) struct process *process = calloc(1, sizeof(*process));
	uint64_t id;
	int error;

	if (!process)
		return -ENOMEM;
	process->pidfd = open_process(wanted->pid, &id);
	if (process->pidfd < 0)
		return process->pidfd;
	if (id != wanted->id)
		return -ESRCH;
	process->watch = platform->processes;
	process->number = number;
	error = sd_event_add_io(
		platform->event, &process->source, process->pidfd, EPOLLIN, handle_end, process);
	if (error < 0)
		return error;
	process->next = platform->processes->processes;
	platform->processes->processes = take_ptr(process);
	return 0;
}

int process_watch_new(struct platform *platform, struct process_watch **ret_watch)
{
	struct process_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return -ENOMEM;
	watch->platform = platform;
	*ret_watch = watch;
	return 0;
}

void process_watch_free(struct process_watch *watch)
{
	if (!watch)
		return;
	while (watch->processes) {
		struct process *process = watch->processes;

		watch->processes = process->next;
		free_process(process);
	}
	free(watch);
}
