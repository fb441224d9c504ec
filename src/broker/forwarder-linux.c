/* The forwarder, which leads ports of the host into the networks' namespace: the connection to it,
 * and which sockets of the host are its. */
#include "broker/linux.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define REPLY_TIMEOUT_S 10
/* It is started again within this. */
#define RETRY_MS 200

struct forwarder_watch {
	struct platform *platform;
	struct sockaddr_un address;
	int connection; /* -1: none */
	sd_event_source *source;
	struct platform_timer *retry;
};

static void drop(struct forwarder_watch *watch)
{
	watch->source = sd_event_source_disable_unref(watch->source);
	fd_close(take_fd(&watch->connection));
}

/* Nothing is ever said unasked: readable means that it has gone, and all its sockets with it. */
static int handle_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct forwarder_watch *watch = userdata;

	drop(watch);
	platform_timer_start(watch->retry, RETRY_MS);
	return 0;
}

static void handle_retry(void *context)
{
	struct forwarder_watch *watch = context;
	struct platform *platform = watch->platform;

	platform->events->forwards_stale(platform->context, "the forwarder died");
}

static int set_timeouts(int fd)
{
	const struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_S};

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return -errno;
	return 0;
}

static int open_connection(struct forwarder_watch *watch)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	error = set_timeouts(fd);
	if (error)
		return error;
	if (connect(fd, (const struct sockaddr *)&watch->address, sizeof(watch->address)) < 0)
		return -errno;
	error = sd_event_add_io(
		watch->platform->event, &watch->source, fd, EPOLLIN, handle_end, watch);
	if (error < 0)
		return error;
	watch->connection = take_fd(&fd);
	return 0;
}

int forwarder_watch_apply(struct forwarder_watch *watch, struct platform_forward *forwards,
	size_t count, bool ends_flows, char *detail)
{
	char ignored[PLATFORM_DETAIL_SIZE];
	int error = watch->connection < 0 ? open_connection(watch) : 0;

	if (!error)
		error = forwarder_apply(
			watch->connection, forwards, count, ends_flows, detail ? detail : ignored);
	if (error < 0)
		drop(watch);
	return error;
}

/* --- whose a socket is --- */

static bool has_socket(int fds, unsigned long inode)
{
	char wanted[32], target[32];
	DIR *entries = fdopendir(fds);
	bool found = false;

	snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
	if (!entries) {
		fd_close(fds);
		return false;
	}
	for (const struct dirent *entry; !found && (entry = readdir(entries));) {
		ssize_t length =
			readlinkat(dirfd(entries), entry->d_name, target, sizeof(target) - 1);

		target[length > 0 ? length : 0] = '\0';
		found = strcmp(target, wanted) == 0;
	}
	closedir(entries);
	return found;
}

static bool is_own_program(const char *pid)
{
	char path[64 + NAME_MAX], program[PATH_MAX], own[PATH_MAX];
	ssize_t length, own_length = readlink("/proc/self/exe", own, sizeof(own));

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	length = readlink(path, program, sizeof(program));
	return length > 0 && length == own_length && memcmp(program, own, (size_t)length) == 0;
}

bool forwarder_has_socket(unsigned long inode)
{
	char path[64 + NAME_MAX];
	DIR *processes = opendir("/proc");
	bool found = false;

	for (const struct dirent *entry; processes && !found && (entry = readdir(processes));) {
		int fds;

		if (!isdigit((unsigned char)*entry->d_name) || !is_own_program(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/fd", entry->d_name);
		fds = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		found = fds >= 0 && has_socket(fds, inode);
	}
	if (processes)
		closedir(processes);
	return found;
}

void forwarder_watch_free(struct forwarder_watch *watch)
{
	if (!watch)
		return;
	drop(watch);
	platform_timer_free(watch->retry);
	free(watch);
}
DEFINE_CLEANUP(struct forwarder_watch, forwarder_watch_free)

int forwarder_watch_new(struct platform *platform, const char *runtime_directory,
	struct forwarder_watch **ret_watch)
{
	cleanup_with(forwarder_watch_free) struct forwarder_watch *watch =
		calloc(1, sizeof(*watch));
	int error;

	if (!watch)
		return -ENOMEM;
	*watch = (struct forwarder_watch){
		.platform = platform, .connection = -1, .address.sun_family = AF_UNIX};
	if ((size_t)snprintf(watch->address.sun_path, sizeof(watch->address.sun_path),
		    "%s/forwarder", runtime_directory) >= sizeof(watch->address.sun_path))
		return -ENAMETOOLONG;
	error = platform_timer_new(platform, handle_retry, watch, &watch->retry);
	if (error)
		return error;
	*ret_watch = take_ptr(watch);
	return 0;
}
