#include "rootless/namespaces.h"

#include "base/spawn.h"
#include "base/text.h"
#include "rootless/pause.h"
#include "rootless/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PAUSE_PATIENCE_MS 5000

void namespaces_init(struct namespaces *namespaces)
{
	*namespaces = (struct namespaces){.user = -1, .network = -1, .hold = -1};
}

void namespaces_done(struct namespaces *namespaces)
{
	fd_close(namespaces->user);
	fd_close(namespaces->network);
	fd_close(namespaces->hold);
	namespaces_init(namespaces);
}

uint64_t namespaces_inode(const struct namespaces *namespaces)
{
	struct stat status;

	return fstat(namespaces->network, &status) < 0 ? 0 : status.st_ino;
}

/* --- entering --- */

int namespaces_enter_user(void *context)
{
	const struct namespaces *namespaces = context;

	return setns(namespaces->user, CLONE_NEWUSER) < 0 ? -errno : 0;
}

int namespaces_enter(void *context)
{
	const struct namespaces *namespaces = context;
	int error = namespaces_enter_user(context);

	if (!error && setns(namespaces->network, CLONE_NEWNET) < 0)
		error = -errno;
	return error;
}

/* --- telling one from another --- */

static uint64_t read_own_cookie(void)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t cookie;
	socklen_t size = sizeof(cookie);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0 ? cookie
											   : 0;
}

/* Entering cannot be undone, so it is a child that does. */
static pid_t start_reading_cookie(const struct namespaces *namespaces, int writer)
{
	struct namespaces entered = *namespaces;
	pid_t pid = fork();
	uint64_t cookie;

	if (pid != 0)
		return pid;
	cookie = namespaces_enter(&entered) == 0 ? read_own_cookie() : 0;
	_exit(write(writer, &cookie, sizeof(cookie)) == sizeof(cookie) ? 0 : 1);
}

uint64_t namespaces_cookie(const struct namespaces *namespaces)
{
	cleanup_fd int reader = -1;
	cleanup_fd int writer = -1;
	uint64_t cookie = 0;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return 0;
	reader = ends[0];
	writer = ends[1];
	pid = start_reading_cookie(namespaces, writer);
	fd_close(take_fd(&writer));
	if (pid < 0 || read(reader, &cookie, sizeof(cookie)) != sizeof(cookie))
		cookie = 0;
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return cookie;
}

/* --- making --- */

static int write_file(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t length = strlen(text);

	if (fd < 0)
		return -errno;
	return write(fd, text, length) == (ssize_t)length ? 0 : -errno;
}

/* One uid and one gid, which need no help of newuidmap(1): dnsmasq gets along with that. */
static int map_ids(unsigned int uid, unsigned int gid)
{
	char map[32];
	int error = write_file("/proc/self/setgroups", "deny");

	snprintf(map, sizeof(map), "0 %u 1", uid);
	if (!error)
		error = write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "0 %u 1", gid);
	return error ? error : write_file("/proc/self/gid_map", map);
}

/* Also the first thing that takes a capability: where AppArmor lets a namespace be made and nothing
 * be done in it, this is what fails. */
static int start_loopback(void)
{
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};

	return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

/*
 * Where br_netfilter is loaded each new namespace sends its bridges' frames through iptables, in
 * which there is nothing here: a third of the throughput between VMs with large frames.
 */
static void stop_bridge_netfilter(void)
{
	static const char *const paths[] = {
		"/proc/sys/net/bridge/bridge-nf-call-iptables",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables",
		"/proc/sys/net/bridge/bridge-nf-call-arptables",
	};

	for (size_t i = 0; i < array_length(paths); i++)
		(void)write_file(paths[i], "0");
}

/* In the child that becomes the pause process. */
static int make(void *context)
{
	unsigned int uid = geteuid(), gid = getegid();
	int error;

	if (setsid() < 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return -errno;
	error = map_ids(uid, gid);
	if (!error)
		error = start_loopback();
	if (!error)
		stop_bridge_netfilter();
	return error;
}

static int enter_session(void *context)
{
	return setsid() < 0 ? -errno : namespaces_enter(context);
}

/* --- the pause process --- */

/* Bound only: who calls listen(2) is who SO_PEERCRED tells of. */
static int bind_pause(const char *runtime_directory, int *ret_fd)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	int error;

	if (fd < 0)
		return -errno;
	error = sockets_make_address(runtime_directory, PAUSE_SOCKET, &address);
	if (error)
		return error;
	unlink(address.sun_path);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void unlink_pause(const char *runtime_directory)
{
	struct sockaddr_un address;

	if (sockets_make_address(runtime_directory, PAUSE_SOCKET, &address) == 0)
		unlink(address.sun_path);
}

static int open_of_process(pid_t pid, const char *name, int *ret_fd)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* The process is known to live: its connection, or its being our child, says so. */
static int take_of_process(pid_t pid, struct namespaces *namespaces)
{
	int error = open_of_process(pid, "user", &namespaces->user);

	if (!error)
		error = open_of_process(pid, "net", &namespaces->network);
	if (!error)
		namespaces->pause_pid = pid;
	return error;
}

/* It outlives the broker, and so has nothing of who started that: neither his terminal nor a pipe.
 */
static int spawn_pause(const char *runtime_directory, int listener, int first,
	int (*prepare)(void *context), struct namespaces *namespaces, pid_t *ret_pid)
{
	char runtime[PATH_MAX + 16];
	char program[] = "vmnet-broker", role[] = "--role=pause";
	char *arguments[] = {program, role, runtime, NULL};
	cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const struct spawn_fd fds[] = {{null, STDIN_FILENO}, {null, STDOUT_FILENO},
		{null, STDERR_FILENO}, {listener, PAUSE_LISTEN_FD}, {first, PAUSE_FIRST_FD}};

	if (null < 0)
		return -errno;
	snprintf(runtime, sizeof(runtime), "--runtime-dir=%s", runtime_directory);
	return spawn(
		&(struct spawn_options){
			.path = "/proc/self/exe",
			.arguments = arguments,
			.fds = fds,
			.fds_count = array_length(fds),
			.prepare = prepare,
			.context = namespaces,
		},
		ret_pid, NULL);
}

/* Until then it has capabilities, and pasta, which has fewer, may not open its namespaces. */
static int wait_for_pause(int connection)
{
	struct pollfd waiter = {.fd = connection, .events = POLLIN};
	char byte;

	if (poll(&waiter, 1, PAUSE_PATIENCE_MS) != 1 || read(connection, &byte, 1) != 1)
		return -ETIMEDOUT;
	return 0;
}

/* With namespaces that were found it holds these, else new ones. */
static int start_pause(const char *runtime_directory, struct namespaces *namespaces)
{
	bool is_found = namespaces->network >= 0;
	cleanup_fd int listener = -1;
	cleanup_fd int ours = -1;
	cleanup_fd int theirs = -1;
	int ends[2];
	pid_t pid;
	int error = bind_pause(runtime_directory, &listener);

	if (error)
		return error;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	ours = ends[0];
	theirs = ends[1];
	error = spawn_pause(runtime_directory, listener, theirs, is_found ? enter_session : make,
		namespaces, &pid);
	if (!error && !is_found)
		error = take_of_process(pid, namespaces);
	fd_close(take_fd(&theirs));
	if (!error)
		error = wait_for_pause(ours);
	if (error) {
		unlink_pause(runtime_directory);
		return error;
	}
	namespaces->pause_pid = pid;
	namespaces->hold = take_fd(&ours);
	return 0;
}

int namespaces_revive(const char *runtime_directory, struct namespaces *namespaces)
{
	pid_t pid = namespaces->pause_pid;

	/* It is our child, unless an earlier broker started it. */
	if (pid > 0 && waitpid(pid, NULL, WNOHANG) == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	namespaces->pause_pid = 0;
	fd_close(take_fd(&namespaces->hold));
	return start_pause(runtime_directory, namespaces);
}

/* Nobody says anything there. */
static bool is_over(int connection)
{
	char byte;

	return recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

int namespaces_open_pause(const char *runtime_directory, struct namespaces *ret_namespaces)
{
	cleanup_namespaces struct namespaces namespaces;
	cleanup_fd int fd = -1;
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int error;

	namespaces_init(&namespaces);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	error = sockets_make_address(runtime_directory, PAUSE_SOCKET, &address);
	if (error)
		return error;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == ECONNREFUSED ? -ENOENT : -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	if (peer.uid != geteuid())
		return -EPERM;
	error = take_of_process(peer.pid, &namespaces);
	/* While it is there its pid is nobody else's: what was opened is its own. */
	if (is_over(fd))
		return -ENOENT;
	if (error)
		return error;
	namespaces.hold = take_fd(&fd);
	*ret_namespaces = namespaces;
	namespaces_init(&namespaces);
	return 0;
}

/* --- all of it --- */

static int write_record(const char *runtime_directory, const struct namespaces *namespaces)
{
	char path[PATH_MAX];
	cleanup_file FILE *file = NULL;

	snprintf(path, sizeof(path), "%s/" NAMESPACE_RECORD, runtime_directory);
	file = fopen(path, "we");
	if (!file || fprintf(file, "%llu %llu\n", (unsigned long long)namespaces_inode(namespaces),
			     (unsigned long long)namespaces_cookie(namespaces)) < 0)
		return -errno;
	return fflush(file) == 0 ? 0 : -errno;
}

int namespaces_open(const char *runtime_directory, struct namespaces *ret_namespaces)
{
	cleanup_namespaces struct namespaces namespaces;
	int error;
	bool is_new = false;

	namespaces_init(&namespaces);
	error = namespaces_open_pause(runtime_directory, &namespaces);
	if (error == -ENOENT) {
		is_new = namespaces_search(runtime_directory, &namespaces) < 0;
		error = start_pause(runtime_directory, &namespaces);
	}
	if (!error)
		error = write_record(runtime_directory, &namespaces);
	if (error)
		return error;
	*ret_namespaces = namespaces;
	namespaces_init(&namespaces);
	return is_new;
}
