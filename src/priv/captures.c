#include "priv/captures.h"

#include "base/fdpass.h"
#include "base/spawn.h"
#include "priv/capture-order.h"
#include "priv/confine.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static_assert(sizeof(((struct verb_capture_interface *)0)->comment) == CAPTURE_COMMENT_SIZE,
	"a comment is passed on whole");

/*
 * Of each packet socket: some hundred large frames, while a slow reader is waited for. Memory is
 * used only while they wait, but it is the kernel's, and nobody is charged for it: what all of a
 * capture may have grows with the logarithm of their number, until each has what any socket has.
 */
#define RECEIVE_BUFFER     (8 << 20)
#define RECEIVE_BUFFER_MIN (208 << 10)
#define RECEIVE_SHARED     (32 << 20)
/* A process that takes no order for so long is stopped, and holds up nobody else. */
#define ORDER_PATIENCE_MS 1000
/* Of the socket to the reader. */
#define SEND_BUFFER (4 << 20)
/* An EtherType that is reserved and that nothing is sent with (IEEE 802.3): a socket that is bound
 * with it hears only of the end of its interface. */
#define ETHERTYPE_NONE 0xffff

/* A process, or an empty place (pidfd -1). */
struct capture {
	uint32_t number;
	char network[NETWORK_NAME_SIZE];
	pid_t pid;
	int pidfd;
	int orders;            /* -1: it was told to end */
	uint32_t added, ended; /* interfaces, as far as it told their ends */
};

struct captures {
	struct captures_options options;
	uint32_t last_number;
	struct capture list[CAPTURES_MAX];
};

int captures_new(const struct captures_options *options, struct captures **ret_captures)
{
	struct captures *captures = calloc(1, sizeof(*captures));

	if (!captures)
		return -ENOMEM;
	captures->options = *options;
	for (size_t i = 0; i < CAPTURES_MAX; i++)
		captures->list[i].pidfd = captures->list[i].orders = -1;
	*ret_captures = captures;
	return 0;
}

static void end(struct capture *capture)
{
	fd_close(take_fd(&capture->orders));
}

/* True when the place is empty now. */
static bool reap(struct capture *capture, int options)
{
	siginfo_t info = {0};
	int result;

	do {
		result = waitid(P_PIDFD, (id_t)capture->pidfd, &info, WEXITED | options);
	} while (result < 0 && errno == EINTR);
	if (result == 0 && info.si_pid == 0)
		return false;
	end(capture);
	fd_close(take_fd(&capture->pidfd));
	capture->number = 0;
	return true;
}

void captures_reap(struct captures *captures)
{
	for (size_t i = 0; i < CAPTURES_MAX; i++)
		if (captures->list[i].pidfd >= 0)
			(void)reap(&captures->list[i], WNOHANG);
}

void captures_end_all(struct captures *captures)
{
	for (size_t i = 0; captures && i < CAPTURES_MAX; i++)
		end(&captures->list[i]);
}

void captures_free(struct captures *captures)
{
	if (!captures)
		return;
	for (size_t i = 0; i < CAPTURES_MAX; i++) {
		end(&captures->list[i]);
		fd_close(captures->list[i].pidfd);
	}
	free(captures);
}

static struct capture *find(struct captures *captures, uint32_t number)
{
	for (size_t i = 0; i < CAPTURES_MAX; i++)
		if (captures->list[i].orders >= 0 && captures->list[i].number == number)
			return &captures->list[i];
	return NULL;
}

/* One that was told to end and does not, because somebody stopped it, must not keep its place. */
static struct capture *find_place(struct captures *captures)
{
	struct capture *ending = NULL;

	for (size_t i = 0; i < CAPTURES_MAX; i++) {
		if (captures->list[i].pidfd < 0)
			return &captures->list[i];
		if (captures->list[i].orders < 0)
			ending = &captures->list[i];
	}
	if (!ending)
		return NULL;
	(void)syscall(SYS_pidfd_send_signal, ending->pidfd, SIGKILL, NULL, 0);
	return reap(ending, 0) ? ending : NULL;
}

static int open_pair(int type, int *ret_ours, int *ret_theirs)
{
	int ends[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	*ret_ours = ends[0];
	*ret_theirs = ends[1];
	return 0;
}

static int run_process(
	const struct captures_options *options, int orders, int output, struct capture *capture)
{
	static char program[] = "vmnet-broker", role[] = "--role=capture";
	static char *const arguments[] = {program, role, NULL};
	static char *const no_environment[] = {NULL};
	struct confine_user user = {
		.uid = options->uid,
		.gid = options->gid,
		.user_name = options->user_name,
		.parent = getpid(),
	};

	return spawn(
		&(struct spawn_options){
			.path = "/proc/self/exe",
			.arguments = arguments,
			.environment = no_environment,
			.fds = (struct spawn_fd[]){{orders, CAPTURE_ORDERS},
				{output, CAPTURE_OUTPUT}},
			.fds_count = 2,
			.prepare = confine_prepare_front,
			.context = &user,
		},
		&capture->pid, &capture->pidfd);
}

/* fd -1: none goes with it. A process that does not take it is told to end. */
static int send_order(struct capture *capture, const struct capture_order *order, int fd)
{
	struct pollfd room = {.fd = capture->orders, .events = POLLOUT};
	ssize_t size = fd_send(capture->orders, order, sizeof(*order), &fd, fd >= 0 ? 1 : 0);

	if (size == -EAGAIN && poll(&room, 1, ORDER_PATIENCE_MS) > 0)
		size = fd_send(capture->orders, order, sizeof(*order), &fd, fd >= 0 ? 1 : 0);
	if (size == -EAGAIN)
		end(capture);
	return size < 0 ? (int)size : 0;
}

static void set_buffer(int fd, int force_option, int option, int bytes)
{
	/* In a user namespace of its own priv may not force it: as much as anybody may then. */
	if (setsockopt(fd, SOL_SOCKET, force_option, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes));
}

/* The next interface's: what would be its part if all there are had the same. */
static int choose_buffer(struct capture *capture)
{
	uint32_t ended, share;

	while (recv(capture->orders, &ended, sizeof(ended), MSG_DONTWAIT) == sizeof(ended))
		capture->ended = ended <= capture->added ? ended : capture->added;
	share = RECEIVE_SHARED / (capture->added - capture->ended + 1);
	if (share < RECEIVE_BUFFER_MIN)
		return RECEIVE_BUFFER_MIN;
	return share < RECEIVE_BUFFER ? (int)share : RECEIVE_BUFFER;
}

/* Protocol 0 until it is bound: it hears nothing of other interfaces (packet(7)). */
static int open_packets(uint32_t index, uint16_t ethertype, int buffer_bytes, int *ret_fd)
{
	cleanup_fd int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ethertype),
		.sll_ifindex = (int)index,
	};
	const int on = 1;

	if (fd < 0)
		return -errno;
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, buffer_bytes);
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0 ||
		setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0 ||
		bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

static int watch_network(struct capture *capture, uint32_t bridge)
{
	const struct capture_order order = {.kind = CAPTURE_NETWORK};
	cleanup_fd int packets = -1;
	int error = open_packets(bridge, ETHERTYPE_NONE, RECEIVE_BUFFER_MIN, &packets);

	return error ? error : send_order(capture, &order, packets);
}

static int give_first_orders(
	struct capture *capture, const struct verb_start_capture *wanted, uint32_t bridge)
{
	const struct capture_order order = {
		.kind = CAPTURE_BEGIN, .snaplen = wanted->snaplen, .count = wanted->count};
	int error = send_order(capture, &order, -1);

	return !error && bridge ? watch_network(capture, bridge) : error;
}

static int start(struct captures *captures, const struct verb_start_capture *wanted,
	uint32_t bridge, struct capture *capture, int *ret_reader)
{
	cleanup_fd int reader = -1, writer = -1;
	cleanup_fd int orders = -1, receiver = -1;
	int error = open_pair(SOCK_STREAM, &reader, &writer);

	if (!error)
		error = open_pair(SOCK_SEQPACKET | SOCK_NONBLOCK, &orders, &receiver);
	if (error)
		return error;
	set_buffer(writer, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BUFFER);
	error = run_process(&captures->options, receiver, writer, capture);
	if (error)
		return error;
	capture->orders = take_fd(&orders);
	capture->added = capture->ended = 0;
	error = give_first_orders(capture, wanted, bridge);
	if (error) {
		end(capture);
		return error;
	}
	*ret_reader = take_fd(&reader);
	return 0;
}

int captures_start(struct captures *captures, const struct verb_start_capture *wanted,
	uint32_t bridge, struct verb_outcome *outcome)
{
	struct capture *capture;
	int reader, error;

	captures_reap(captures);
	capture = find_place(captures);
	if (!capture)
		return outcome_fail(
			outcome, -ENOSPC, "%d captures run, which is the limit", CAPTURES_MAX);
	error = start(captures, wanted, bridge, capture, &reader);
	if (error)
		return outcome_fail(outcome, error, "starting a capture: %s", strerror(-error));
	/* 0 is no number. */
	if (++captures->last_number == 0)
		captures->last_number = 1;
	capture->number = captures->last_number;
	(void)text_copy(capture->network, sizeof(capture->network), wanted->network);
	outcome->value = capture->number;
	return outcome_add_fd(outcome, reader);
}

static int fail_unknown(struct verb_outcome *outcome, uint32_t number)
{
	return outcome_fail(outcome, -ESRCH, "no capture %u runs", number);
}

int captures_add(struct captures *captures, const struct verb_capture_interface *wanted,
	const struct tap_facts *tap, struct verb_outcome *outcome)
{
	struct capture *capture = find(captures, wanted->capture);
	struct capture_order order = {.kind = CAPTURE_INTERFACE, .mtu = tap->mtu};
	cleanup_fd int packets = -1;
	int error;

	if (!capture)
		return fail_unknown(outcome, wanted->capture);
	if (strcmp(tap->network, capture->network) != 0)
		return outcome_fail(outcome, -ESRCH, "capture %u is not of network \"%s\"",
			wanted->capture, tap->network);
	memcpy(order.name, tap->name, sizeof(order.name));
	memcpy(order.comment, wanted->comment, sizeof(order.comment));
	error = open_packets(tap->index, ETH_P_ALL, choose_buffer(capture), &packets);
	if (!error)
		error = send_order(capture, &order, packets);
	if (!error) {
		capture->added++;
		return 0;
	}
	return outcome_fail(outcome, error, "capturing on %s: %s", tap->name, strerror(-error));
}

int captures_end(struct captures *captures, uint32_t number, struct verb_outcome *outcome)
{
	struct capture *capture = find(captures, number);

	if (!capture)
		return fail_unknown(outcome, number);
	end(capture);
	return 0;
}
