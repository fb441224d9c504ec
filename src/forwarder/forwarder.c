#include "forwarder/forwarder.h"

#include "base/log.h"
#include "base/sandbox.h"
#include "forwarder/requests.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#define TAG "forwarder"

#define STREAMS_MAX 4096
#define FLOWS_MAX   4096
/* Sockets of forwards, and what a process has anyhow. */
#define OTHER_FDS (FORWARDER_FORWARDS_MAX + 64)

/* How often flows are looked at that may have been silent for long, and listeners that rest. */
#define UPKEEP_MS 1000

struct forwarder {
	struct loop loop;
	struct streams streams;
	struct datagrams datagrams;
	struct listeners listeners;
	struct requests requests;
};

/* What leading on takes, on the libc of today and of a few years before and after; found by running
 * the tests with each of them missing. */
static const char *const system_calls[] = {
	/* memory, the process itself, a log line */
	"brk",
	"mmap",
	"munmap",
	"mremap",
	"madvise",
	"futex",
	"exit",
	"exit_group",
	"restart_syscall",
	"rt_sigreturn",
	"rt_sigprocmask",
	"getpid",
	"gettid",
	"tgkill",
	"geteuid",
	"write",
	"lseek",
	"poll",
	"ppoll",
	"fstat",
	"newfstatat",
	"clock_gettime",
	/* the loop */
	"epoll_ctl",
	"epoll_wait",
	"epoll_pwait",
	/* sockets and what is between them */
	"accept4",
	"socket",
	"connect",
	"shutdown",
	"getsockopt",
	"setsockopt",
	"getsockname",
	"getpeername",
	"sendmsg",
	"recvmsg",
	"sendmmsg",
	"recvmmsg",
	"splice",
	"pipe2",
	"fcntl",
	"close",
	NULL,
};

/* Returns how many streams and flows there may be, half of each where files are few. */
static size_t read_limits(size_t *ret_flows_max)
{
	struct rlimit limit = {.rlim_cur = 1024};
	size_t share;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	share = limit.rlim_cur > 2 * OTHER_FDS ? limit.rlim_cur - OTHER_FDS : OTHER_FDS;
	*ret_flows_max = share / 4 < FLOWS_MAX ? share / 4 : FLOWS_MAX;
	share = (share - *ret_flows_max) / STREAM_FDS_MAX;
	return share < STREAMS_MAX ? share : STREAMS_MAX;
}

static int confine(void)
{
	int error = sandbox_drop_capabilities();

	/* splice(2) to a socket that is closed raises it. */
	if (!error && signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		error = -errno;
	return error ? error : sandbox_allow_system_calls(system_calls);
}

static int start(struct forwarder *forwarder, int listen_fd)
{
	size_t flows_max;
	size_t streams_max = read_limits(&flows_max);
	int error = loop_init(&forwarder->loop);

	if (!error)
		error = streams_init(&forwarder->streams, &forwarder->loop, streams_max);
	if (!error)
		error = datagrams_init(&forwarder->datagrams, &forwarder->loop, flows_max);
	if (!error)
		error = listeners_init(&forwarder->listeners, &forwarder->loop, &forwarder->streams,
			&forwarder->datagrams);
	if (!error)
		error = requests_init(
			&forwarder->requests, &forwarder->loop, &forwarder->listeners, listen_fd);
	return error ? error : confine();
}

static int choose_timeout(const struct forwarder *forwarder)
{
	if (streams_have_turn(&forwarder->streams))
		return 0;
	if (datagrams_have_flows(&forwarder->datagrams) || listeners_rest(&forwarder->listeners))
		return UPKEEP_MS;
	return -1;
}

static int serve(struct forwarder *forwarder)
{
	uint64_t upkeep_ms = 0;

	for (;;) {
		int error = loop_turn(&forwarder->loop, choose_timeout(forwarder));

		if (error)
			return error;
		streams_end_turn(&forwarder->streams);
		if (forwarder->loop.now_ms < upkeep_ms)
			continue;
		upkeep_ms = forwarder->loop.now_ms + UPKEEP_MS;
		datagrams_expire(&forwarder->datagrams);
		listeners_resume(&forwarder->listeners);
	}
}

int forwarder_run(int listen_fd)
{
	static struct forwarder forwarder = {.loop.epoll = -1, .requests.front = -1};
	int error = start(&forwarder, listen_fd);

	if (error)
		log_error(TAG, "the forwarder cannot begin: %s", strerror(-error));
	else
		error = serve(&forwarder);
	requests_done(&forwarder.requests);
	listeners_done(&forwarder.listeners);
	datagrams_done(&forwarder.datagrams);
	streams_done(&forwarder.streams);
	loop_done(&forwarder.loop);
	return error;
}
