/* The process of a capture: orders in, packets out, until one of its ends. */

#include "priv/priv.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/sandbox.h"
#include "priv/capture-order.h"
#include "priv/capture-packets.h"
#include "priv/pcapng.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

/* More interfaces than a network has addresses for; what comes beyond is not listened to. */
#define SOURCES_MAX 4096
/* One that went down comes back or goes without another word. */
#define DOWN_CHECK_MS 100
/* Without anything taken by the reader: what belongs to the end is not worth more. */
#define END_PATIENCE_MS 1000

enum {
	WATCH_ORDERS,
	WATCH_OUTPUT,
	WATCH_NETWORK,
	WATCH_SOURCES
};

struct process {
	struct capture_batch *batch;
	struct capture_source *sources;
	struct pollfd *watched; /* as many as sources, and WATCH_SOURCES */
	size_t sources_count;
	int network; /* -1: its end is the end of the last source */
	bool network_is_down;
	uint32_t snaplen;
	uint32_t interfaces; /* described so far */
	size_t described;    /* of sources: those in front */
	uint32_t ended;      /* sources that were there */
	bool is_counted;
	uint32_t left; /* packets, of is_counted */
	bool ends;
	int64_t deadline_ms; /* of ends, for the reader to take something */
};

static const char *const system_calls[] = {
	"brk",
	"mmap",
	"munmap",
	"mremap",
	"madvise",
	"futex",
	"getpid",
	"gettid",
	"tgkill",
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"restart_syscall",
	"exit",
	"exit_group",
	"clock_gettime",
	"poll",
	"ppoll",
	"recvfrom",
	"recvmsg",
	"recvmmsg",
	"sendmsg",
	"getsockopt",
	"getsockname",
	"setsockopt",
	"write",
	"close",
	NULL,
};

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void start_to_end(struct process *process)
{
	if (!process->ends)
		process->deadline_ms = now_ms() + END_PATIENCE_MS;
	process->ends = true;
}

/* --- orders --- */

static int grow(struct process *process)
{
	size_t count = process->sources_count + 1;
	struct capture_source *sources =
		reallocarray(process->sources, count, sizeof(*process->sources));
	struct pollfd *watched;

	if (!sources)
		return -ENOMEM;
	process->sources = sources;
	watched = reallocarray(process->watched, WATCH_SOURCES + count, sizeof(*process->watched));
	if (!watched)
		return -ENOMEM;
	process->watched = watched;
	return 0;
}

/* Takes fd over. It is described when there is room to write that. */
static void add_source(struct process *process, const struct capture_order *order, int fd)
{
	struct capture_source *source;
	cleanup_fd int owned = fd;

	if (process->sources_count >= SOURCES_MAX || grow(process) < 0)
		return;
	source = &process->sources[process->sources_count++];
	*source = (struct capture_source){
		.fd = take_fd(&owned),
		.mtu = order->mtu,
		.start_ns = now_ns(),
	};
	memcpy(source->name, order->name, sizeof(source->name));
	memcpy(source->comment, order->comment, sizeof(source->comment));
}

static void obey(struct process *process, const struct capture_order *order, int fd)
{
	if (order->kind == CAPTURE_INTERFACE && fd >= 0)
		add_source(process, order, fd);
	else if (order->kind == CAPTURE_NETWORK && process->network < 0)
		process->network = fd;
	else
		fd_close(fd);
}

/* False when none waits, or none comes any more: whoever closes them wants the end. */
static bool take_order(struct process *process)
{
	cleanup_fds struct fd_list fds;
	struct capture_order order;
	ssize_t size;

	fd_list_init(&fds);
	size = fd_receive(CAPTURE_ORDERS, &order, sizeof(order), &fds);
	if (size == -EAGAIN)
		return false;
	if (size == 0 || size == -ECONNRESET) {
		start_to_end(process);
		return false;
	}
	if (size != sizeof(order))
		return true;
	order.name[sizeof(order.name) - 1] = '\0';
	order.comment[sizeof(order.comment) - 1] = '\0';
	obey(process, &order, fd_list_take(&fds, 0));
	return true;
}

/* All that wait: the kernel counts their fds as priv's until they are taken, and lets it have only
 * so many (unix(7), ETOOMANYREFS). */
static void take_orders(struct process *process)
{
	while (take_order(process))
		;
}

/* --- out --- */

/* Waits for room, for the reader's end, or for priv's word that this is the end. Sources may be
 * added meanwhile, and move. */
static int wait_for_room(struct process *process)
{
	struct pollfd waiters[] = {
		{.fd = CAPTURE_OUTPUT, .events = POLLOUT},
		{.fd = process->ends ? -1 : CAPTURE_ORDERS, .events = POLLIN},
	};
	int64_t patience_ms = process->ends ? process->deadline_ms - now_ms() : -1;

	if (process->ends && patience_ms <= 0)
		return -ETIMEDOUT;
	if (poll(waiters, 2, (int)patience_ms) < 0 && errno != EINTR)
		return -errno;
	if (waiters[1].revents)
		take_orders(process);
	return 0;
}

/* All of them, in order. The vector is used up. */
static int write_blocks(struct process *process, struct iovec *blocks, size_t count)
{
	while (count > 0) {
		const struct msghdr message = {.msg_iov = blocks, .msg_iovlen = count};
		ssize_t size = sendmsg(CAPTURE_OUTPUT, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		int error = size < 0 ? -errno : 0;

		if (error == -EAGAIN)
			error = wait_for_room(process);
		if (error && error != -EINTR)
			return error;
		if (size > 0)
			process->deadline_ms = now_ms() + END_PATIENCE_MS;
		for (; size > 0 && count > 0 && (size_t)size >= blocks->iov_len; blocks++, count--)
			size -= (ssize_t)blocks->iov_len;
		if (size > 0) {
			blocks->iov_base = (char *)blocks->iov_base + size;
			blocks->iov_len -= (size_t)size;
		}
	}
	return 0;
}

static int write_block(struct process *process, uint8_t *bytes, size_t size)
{
	return write_blocks(process, &(struct iovec){bytes, size}, 1);
}

static int write_interface(struct process *process, struct capture_source *source)
{
	uint8_t block[PCAPNG_BLOCK_MAX];
	const struct pcapng_interface interface = {
		.name = source->name,
		.comment = source->comment,
		.snaplen = process->snaplen,
	};

	source->interface = process->interfaces++;
	return write_block(
		process, block, pcapng_write_interface(block, sizeof(block), &interface));
}

/* Those that came since, before a packet of theirs is written. */
static int describe_sources(struct process *process)
{
	int error = 0;

	while (process->described < process->sources_count && !error)
		error = write_interface(process, &process->sources[process->described++]);
	return error;
}

static int write_statistics(struct process *process, struct capture_source *source)
{
	uint8_t block[PCAPNG_BLOCK_MAX];
	struct pcapng_statistics statistics = {
		.interface = source->interface, .start_ns = source->start_ns, .end_ns = now_ns()};

	capture_source_count(source);
	statistics.received = source->received;
	statistics.dropped = source->dropped;
	return write_block(
		process, block, pcapng_write_statistics(block, sizeof(block), &statistics));
}

/* --- in --- */

/* Returns the packets that were taken, at most a batch, or negative errno of the output. */
static int serve_source(struct process *process, size_t i)
{
	struct iovec blocks[CAPTURE_BATCH];
	unsigned int maximum = CAPTURE_BATCH;
	int count, error;

	if (process->is_counted && process->left < maximum)
		maximum = process->left;
	if (maximum == 0)
		return 0;
	count = capture_batch_receive(process->batch, &process->sources[i], maximum, blocks);
	error = write_blocks(process, blocks, (size_t)count);
	if (process->is_counted)
		process->left -= (uint32_t)count;
	if (process->is_counted && process->left == 0)
		start_to_end(process);
	return error ? error : count;
}

/* One that is described. Those that are not stay behind those that are. */
static void remove_source(struct process *process, size_t i)
{
	fd_close(process->sources[i].fd);
	process->sources[i] = process->sources[--process->described];
	process->sources[process->described] = process->sources[--process->sources_count];
	process->ended++;
	/* Without room it is told with the next one. */
	(void)fd_send(CAPTURE_ORDERS, &process->ended, sizeof(process->ended), NULL, 0);
}

/* What waits still, and what is to be said of it. */
static int end_source(struct process *process, size_t i)
{
	int result;

	do
		result = serve_source(process, i);
	while (result > 0);
	if (!result)
		result = write_statistics(process, &process->sources[i]);
	remove_source(process, i);
	return result;
}

static int check_down(struct process *process)
{
	int error = 0;

	for (size_t i = process->described; i-- > 0 && !error;)
		if (process->sources[i].is_down &&
			capture_interface_has_gone(process->sources[i].fd))
			error = end_source(process, i);
	if (process->network >= 0
			? process->network_is_down && capture_interface_has_gone(process->network)
			: process->interfaces > 0 && process->sources_count == 0)
		start_to_end(process);
	return error;
}

/* --- the beginning --- */

static int take_first_order(struct process *process)
{
	struct pollfd waiter = {.fd = CAPTURE_ORDERS, .events = POLLIN};
	uint8_t block[PCAPNG_BLOCK_MAX];
	struct capture_order order;
	int error;

	(void)poll(&waiter, 1, -1);
	if (recv(CAPTURE_ORDERS, &order, sizeof(order), 0) != sizeof(order) ||
		order.kind != CAPTURE_BEGIN)
		return -EBADMSG;
	process->snaplen = order.snaplen;
	process->is_counted = order.count > 0;
	process->left = order.count;
	error = capture_batch_new(order.snaplen, &process->batch);
	if (!error)
		error = grow(process);
	return error ? error
		     : write_block(process, block,
			       pcapng_write_section(block, sizeof(block), "vmnet-broker"));
}

/* --- the loop --- */

/* Returns how long to wait at most, -1: for ever. */
static int watch(struct process *process)
{
	int timeout_ms = process->network_is_down ? DOWN_CHECK_MS : -1;

	process->watched[WATCH_ORDERS] = (struct pollfd){CAPTURE_ORDERS, POLLIN, 0};
	process->watched[WATCH_OUTPUT] = (struct pollfd){CAPTURE_OUTPUT, POLLRDHUP, 0};
	process->watched[WATCH_NETWORK] =
		(struct pollfd){process->network_is_down ? -1 : process->network, POLLIN, 0};
	for (size_t i = 0; i < process->sources_count; i++) {
		process->watched[WATCH_SOURCES + i] =
			(struct pollfd){process->sources[i].fd, POLLIN, 0};
		if (process->sources[i].is_down)
			timeout_ms = DOWN_CHECK_MS;
	}
	return timeout_ms;
}

static int serve_sources(struct process *process)
{
	size_t count = process->described;
	int result = 0;

	for (size_t i = 0; i < count && result >= 0 && !process->ends; i++)
		if (process->watched[WATCH_SOURCES + i].revents)
			result = serve_source(process, i);
	return result < 0 ? result : 0;
}

static int run_once(struct process *process)
{
	int timeout_ms = watch(process);
	int error = 0;

	if (poll(process->watched, WATCH_SOURCES + process->sources_count, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	/* The reader is gone, or wants no more. */
	if (process->watched[WATCH_OUTPUT].revents & (POLLHUP | POLLERR))
		return -EPIPE;
	if (process->watched[WATCH_OUTPUT].revents & POLLRDHUP)
		start_to_end(process);
	if (process->watched[WATCH_NETWORK].revents)
		process->network_is_down = true;
	error = serve_sources(process);
	/* Behind them: it may move the list. */
	if (process->watched[WATCH_ORDERS].revents)
		take_orders(process);
	if (!error)
		error = describe_sources(process);
	return error ? error : check_down(process);
}

static int run(struct process *process)
{
	int error = take_first_order(process);

	while (!error && !process->ends)
		error = run_once(process);
	/* What priv had said by then belongs to it. */
	take_orders(process);
	if (!error)
		error = describe_sources(process);
	/* All at one time, and then what came before that. */
	for (size_t i = 0; i < process->sources_count; i++)
		capture_source_stop(&process->sources[i]);
	while (!error && process->described > 0)
		error = end_source(process, process->described - 1);
	return error;
}

static int enter_sandbox(void)
{
	struct rlimit limit;
	int error;

	/* A socket an interface. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
#if !defined(__SANITIZE_ADDRESS__)
	/* Other processes of this user could take the sockets away; the leak checker traces us. */
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return -errno;
#endif
	error = sandbox_drop_capabilities();
	if (!error)
		error = sandbox_no_new_privileges();
	return error ? error : sandbox_allow_system_calls(system_calls);
}

int priv_run_capture(void)
{
	struct process process = {.network = -1};
	int error = enter_sandbox();

	if (!error)
		error = run(&process);
	for (size_t i = 0; i < process.sources_count; i++)
		fd_close(process.sources[i].fd);
	fd_close(process.network);
	capture_batch_free(process.batch);
	free(process.sources);
	free(process.watched);
	return error;
}
