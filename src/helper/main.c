/*
 * vmnet-helper: the cable between one VM's socket and a TAP on a network.
 *
 * Startup, in this order; nothing is on stdout before all that can fail has succeeded:
 *   options -> --fd checked -> a broker (as root: started if there is none) -> root's identity
 *   given up -> signals (until then they end it at once) -> path locked and bound -> interface
 *   -> sandbox
 *   --fd, --vhost-user: forwarding starts -> the line on stdout
 *   --socket, --stream: the line on stdout, on which the client is started -> it comes ->
 * forwarding Then it waits for the end: a signal, the VM's death, or a broken port. See
 * socket-server.h for the client's handshake, forward.h for the data path, peer-watch.h for the
 * VM's death.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "client/start-broker.h"
#include "config.h"
#include "helper/attach.h"
#include "helper/cable.h"
#include "helper/helper-options.h"
#include "helper/peer-watch.h"
#include "helper/privileges.h"
#include "helper/socket-server.h"
#include "helper/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/*
 * What a step of the startup or the waiting came to. A step that failed has logged why.
 */
enum outcome {
	OUTCOME_GO_ON,
	OUTCOME_STOP,   /* asked for by a signal, or the VM has gone: exit status 0 */
	OUTCOME_FAILED, /* exit status 1 */
};

/* The original sizes the VM's queue with 4 MiB: two milliseconds of a fast guest. Below a quarter
 * of it bursts of one TCP window are lost. */
#define SOCKET_BUFFER_GOOD (1u << 20)

struct helper {
	struct helper_options options;
	vmnet_broker_t *broker;
	int signals;
	int stats_timer;
	enum cable_kind kind;
	int vm_socket; /* --fd */
	struct socket_server server;
	struct vmnet_broker_interface interface;
	struct direction_counters strangers; /* messages dropped while waiting for the client */
	struct cable cable;
	bool has_told_trouble;
	struct peer_watch watch;
};

static void init_helper(struct helper *helper)
{
	helper->signals = helper->stats_timer = helper->vm_socket = -1;
	cable_init(&helper->cable);
	peer_watch_init_off(&helper->watch);
	socket_server_init(&helper->server);
}

static void finish_helper(struct helper *helper)
{
	cable_close(&helper->cable);
	peer_watch_done(&helper->watch);
	socket_server_close(&helper->server);
	fd_close(helper->vm_socket);
	for (size_t i = 0; i < helper->interface.queues_count; i++)
		fd_close(helper->interface.queues[i]);
	fd_close(helper->signals);
	fd_close(helper->stats_timer);
	vmnet_broker_close(helper->broker);
}

/* Otherwise a socket or the TAP could become fd 1, and the line would go there. */
static int occupy_standard_fds(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	fd_close(fd);
	return fd < 0 ? -1 : 0;
}

/* First of all, so that the number cannot mean a descriptor of our own making. */
static enum outcome adopt_inherited_socket(struct helper *helper)
{
	int fd = helper->options.fd;
	int kind;

	if (fd < 0)
		return OUTCOME_GO_ON;
	kind = cable_kind_of_socket(fd);
	switch (kind) {
	case CABLE_DGRAM:
	case CABLE_STREAM:
		break;
	case -EAFNOSUPPORT:
		log_error("main",
			"option --fd %d: a unix datagram, seqpacket or stream socket is needed",
			fd);
		return OUTCOME_FAILED;
	case -ENOTCONN:
		log_error("main",
			"option --fd %d: the socket has no peer; make the two with socketpair(2)",
			fd);
		return OUTCOME_FAILED;
	default:
		log_error("main", "option --fd %d: %s; pass the VM's socket on to vmnet-helper", fd,
			strerror(-kind));
		return OUTCOME_FAILED;
	}
	helper->kind = (enum cable_kind)kind;
	helper->vm_socket = fd;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return OUTCOME_GO_ON;
}

static void exit_at_once(int signal_number)
{
	_exit(EXIT_SUCCESS);
}

/* There is nothing to clean up yet, and waiting for the broker may take long. */
static enum outcome exit_on_signals(struct helper *helper)
{
	signal(SIGTERM, exit_at_once);
	signal(SIGINT, exit_at_once);
	return OUTCOME_GO_ON;
}

static enum outcome find_broker(struct helper *helper)
{
	char reason[START_BROKER_ERROR_SIZE];

	helper->broker = start_broker(reason);
	if (helper->broker)
		return OUTCOME_GO_ON;
	log_error("main", "%s", reason);
	return OUTCOME_FAILED;
}

/*
 * The interface shall belong to the user who ran sudo. Where only root may use the broker, the
 * permission to run this program through sudo is the permission to use the broker.
 */
static enum outcome give_up_root(struct helper *helper)
{
	char reason[PRIVILEGES_REASON_SIZE];
	bool was_root = geteuid() == 0;
	vmnet_broker_t *broker;

	if (privileges_give_up_root(reason) < 0) {
		log_error("main", "%s", reason);
		return OUTCOME_FAILED;
	}
	if (!was_root || geteuid() == 0)
		return OUTCOME_GO_ON;
	broker = vmnet_broker_connect(NULL, NULL, NULL, 0);
	if (broker) {
		vmnet_broker_close(helper->broker);
		helper->broker = broker;
	}
	return OUTCOME_GO_ON;
}

static enum outcome catch_signals(struct helper *helper)
{
	sigset_t stops;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	sigprocmask(SIG_BLOCK, &stops, NULL);
	helper->signals = signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK);
	if (helper->signals >= 0)
		return OUTCOME_GO_ON;
	log_error("main", "cannot watch for signals: %s", strerror(errno));
	return OUTCOME_FAILED;
}

static enum outcome open_path_socket(struct helper *helper)
{
	const char *path = helper_options_path(&helper->options);
	char reason[SOCKET_SERVER_REASON_SIZE];

	if (!path)
		return OUTCOME_GO_ON;
	helper->kind = path == helper->options.socket_path   ? CABLE_DGRAM
		       : path == helper->options.stream_path ? CABLE_STREAM
							     : CABLE_VHOST_USER;
	if (socket_server_open(&helper->server, path,
		    helper->kind == CABLE_DGRAM ? SOCK_DGRAM : SOCK_STREAM, reason) == 0)
		return OUTCOME_GO_ON;
	log_error("main", "%s", reason);
	return OUTCOME_FAILED;
}

static enum outcome take_signal(const struct helper *helper)
{
	struct signalfd_siginfo signal;

	if (read(helper->signals, &signal, sizeof(signal)) != sizeof(signal))
		return OUTCOME_GO_ON;
	log_info("main", "stopped by signal %u", signal.ssi_signo);
	return OUTCOME_STOP;
}

/* Waits until fd has one of the events of poll(2); a stop comes first. */
static enum outcome wait_for(const struct helper *helper, int fd, short events)
{
	struct pollfd fds[] = {
		{.fd = helper->signals, .events = POLLIN},
		{.fd = fd, .events = events},
	};
	enum outcome outcome = OUTCOME_GO_ON;

	do {
		poll(fds, array_length(fds), -1);
		if (fds[0].revents)
			outcome = take_signal(helper);
	} while (outcome == OUTCOME_GO_ON && !fds[1].revents);
	return outcome;
}

static enum outcome take_interface(struct helper *helper, const struct attach_request *request)
{
	const struct vmnet_broker_interface *interface = &helper->interface;

	if (request->status != VMNET_BROKER_SUCCESS) {
		log_error("main", "%s", request->reason);
		return OUTCOME_FAILED;
	}
	helper->interface = request->interface;
	log_debug("main", "interface %s joined network \"%s\"", interface->name,
		interface->network.name);
	if (interface->socket_buffer_bytes < SOCKET_BUFFER_GOOD)
		log_warn("main",
			"the broker could not enlarge the socket's buffers (%u bytes now): bursts "
			"to "
			"the VM will lose frames",
			interface->socket_buffer_bytes);
	return OUTCOME_GO_ON;
}

static enum outcome join_network(struct helper *helper)
{
	int vm_socket = helper->vm_socket >= 0 ? helper->vm_socket : helper->server.socket;
	struct attach_request *request;
	enum outcome outcome;
	int error = attach_request_start(
		take_ptr(helper->broker), &helper->options, vm_socket, &request);

	if (error) {
		log_error("main", "cannot ask the broker: %s", strerror(-error));
		return OUTCOME_FAILED;
	}
	outcome = wait_for(helper, request->done_event, POLLIN);
	/* After a stop the thread may be in the middle of it: the process ends with the request. */
	if (outcome != OUTCOME_GO_ON)
		return outcome;
	outcome = take_interface(helper, request);
	attach_request_finish(request);
	return outcome;
}

static enum outcome enter_sandbox(struct helper *helper)
{
	char reason[PRIVILEGES_REASON_SIZE];

	/* Reads its file now; later it could not. */
	tzset();
	if (privileges_enter_sandbox(reason) == 0)
		return OUTCOME_GO_ON;
	log_error("main", "%s", reason);
	return OUTCOME_FAILED;
}

/* Who does not read the line shall not keep us from ending: a pipe with any room takes it whole, as
 * it is shorter than PIPE_BUF (pipe(7)). */
static enum outcome announce(struct helper *helper)
{
	cleanup_free char *line = NULL;
	int error = attach_startline(&helper->interface, &helper->options, &line);
	enum outcome outcome;

	if (error) {
		log_error("main", "cannot describe the interface: %s", strerror(-error));
		return OUTCOME_FAILED;
	}
	outcome = wait_for(helper, STDOUT_FILENO, POLLOUT);
	if (outcome != OUTCOME_GO_ON)
		return outcome;
	if (fputs(line, stdout) >= 0 && fflush(stdout) == 0)
		return OUTCOME_GO_ON;
	log_error("main", "cannot write to stdout: %s", strerror(errno));
	return OUTCOME_FAILED;
}

/* Returns 1 when helper->vm_socket is the client's, 0 when nobody was there, or negative errno. */
static int try_to_meet(struct helper *helper, bool *has_warned)
{
	char reason[SOCKET_SERVER_REASON_SIZE] = "";
	int met;

	if (helper->kind == CABLE_STREAM)
		return socket_server_accept(&helper->server, &helper->vm_socket);
	met = socket_server_meet_client(&helper->server, &helper->strangers, reason);
	/* Once, because such a client may send as fast as it likes. */
	if (*reason && !*has_warned)
		log_warn("main", "%s", reason);
	*has_warned = *has_warned || *reason;
	if (met == 1)
		helper->vm_socket = take_fd(&helper->server.socket);
	return met;
}

static enum outcome meet_client(struct helper *helper)
{
	const char *path = helper_options_path(&helper->options);
	bool has_warned = false;
	int met = 0;

	log_info("main", "waiting for a client on %s", path);
	while (met == 0) {
		enum outcome outcome = wait_for(helper, helper->server.socket, POLLIN);

		if (outcome != OUTCOME_GO_ON)
			return outcome;
		met = try_to_meet(helper, &has_warned);
	}
	if (met > 0)
		return OUTCOME_GO_ON;
	log_error("main", "cannot meet a client on %s: %s", path, strerror(-met));
	return OUTCOME_FAILED;
}

static int open_vhost_user(struct helper *helper)
{
	struct vmnet_broker_interface *interface = &helper->interface;
	size_t queues = interface->queues_count;

	interface->queues_count = 0; /* they are the cable's now */
	return cable_open_vhost_user(&helper->cable, take_fd(&helper->server.socket),
		interface->queues, queues, interface->network.mtu);
}

static int open_cable(struct helper *helper)
{
	struct cable *cable = &helper->cable;
	int error;

	if (helper->kind == CABLE_VHOST_USER)
		return open_vhost_user(helper);
	error = cable_open_socket(cable, helper->kind, take_fd(&helper->vm_socket),
		take_fd(&helper->interface.queues[0]),
		helper_options_offload_mode(&helper->options), helper->interface.network.mtu);

	if (!error && helper->kind == CABLE_DGRAM)
		error = peer_watch_init(&helper->watch, cable->vm_port);
	return error;
}

static enum outcome start_forwarding(struct helper *helper)
{
	int error = open_cable(helper);

	if (!error)
		error = cable_start(&helper->cable);
	if (!error)
		return OUTCOME_GO_ON;
	log_error("main", "cannot forward: %s", strerror(-error));
	return OUTCOME_FAILED;
}

static enum outcome start_stats(struct helper *helper)
{
	const struct timespec interval = {.tv_sec = helper->options.stats_interval_seconds};
	const struct itimerspec time = {.it_value = interval, .it_interval = interval};

	if (interval.tv_sec == 0)
		return OUTCOME_GO_ON;
	helper->stats_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (helper->stats_timer >= 0 && timerfd_settime(helper->stats_timer, 0, &time, NULL) == 0)
		return OUTCOME_GO_ON;
	log_error("main", "cannot start the stats timer: %s", strerror(errno));
	return OUTCOME_FAILED;
}

static void print_stats(const struct helper *helper)
{
	struct direction_counters counters[DIRECTION_COUNT];
	char text[STATS_TEXT_SIZE];
	struct timespec now;
	uint64_t ignored;

	if (read(helper->stats_timer, &ignored, sizeof(ignored)) < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	for (enum direction direction = 0; direction < DIRECTION_COUNT; direction++)
		cable_count(&helper->cable, direction, &counters[direction]);
	counters_add(&counters[DIRECTION_VM_TO_HOST], &helper->strangers);
	if (stats_to_text(&now, &counters[DIRECTION_HOST_TO_VM], &counters[DIRECTION_VM_TO_HOST],
		    text) == 0)
		log_info("stats", "%s", text);
}

static enum outcome judge_end(const struct helper *helper)
{
	enum outcome outcome = OUTCOME_GO_ON;

	for (enum direction direction = 0; direction < DIRECTION_COUNT; direction++) {
		int result = cable_result(&helper->cable, direction);

		if (result == -ECONNRESET) {
			log_info(direction_name(direction), "the VM closed its socket");
			return OUTCOME_STOP;
		}
		if (result == -EBADFD)
			log_error(direction_name(direction), "interface %s was deleted",
				helper->interface.name);
		else if (result == -EBADMSG)
			log_error(direction_name(direction),
				"the VM sent a length that no frame has; it must send each frame "
				"behind its length, four bytes in network order");
		else if (result < 0)
			log_error(
				direction_name(direction), "cannot forward: %s", strerror(-result));
		if (result < 0)
			outcome = OUTCOME_FAILED;
	}
	return outcome;
}

static enum outcome judge_cable(struct helper *helper, const struct pollfd *fds)
{
	char reason[CABLE_REASON_SIZE];
	enum cable_news news = cable_dispatch(&helper->cable, fds, reason);

	/* What a guest can bring about again and again is said aloud once. */
	if (news == CABLE_TROUBLE && !helper->has_told_trouble)
		log_warn("main", "%s", reason);
	else if (*reason)
		log_debug("main", "%s", reason);
	helper->has_told_trouble = helper->has_told_trouble || news == CABLE_TROUBLE;
	return news == CABLE_ENDED ? judge_end(helper) : OUTCOME_GO_ON;
}

static enum outcome judge_watch(struct helper *helper, const struct pollfd *fds)
{
	enum peer_watch_state before = helper->watch.state;
	enum peer_watch_state state = peer_watch_dispatch(&helper->watch, fds);

	if (state == before)
		return OUTCOME_GO_ON;
	if (state == PEER_WATCH_GONE)
		log_info("main", "the VM's process has ended");
	if (state == PEER_WATCH_BLIND)
		log_debug("main", "the VM's process cannot be watched: it is not visible here");
	return state == PEER_WATCH_GONE ? OUTCOME_STOP : OUTCOME_GO_ON;
}

enum wait_fd {
	WAIT_FD_SIGNALS,
	WAIT_FD_STATS,
	WAIT_FD_CABLE,
	WAIT_FD_WATCH = WAIT_FD_CABLE + CABLE_FDS,
	WAIT_FD_COUNT = WAIT_FD_WATCH + PEER_WATCH_FDS,
};

static enum outcome wait_for_end(struct helper *helper)
{
	enum outcome outcome = OUTCOME_GO_ON;

	while (outcome == OUTCOME_GO_ON) {
		struct pollfd fds[WAIT_FD_COUNT] = {
			[WAIT_FD_SIGNALS] = {.fd = helper->signals, .events = POLLIN},
			[WAIT_FD_STATS] = {.fd = helper->stats_timer, .events = POLLIN},
		};

		cable_fill(&helper->cable, &fds[WAIT_FD_CABLE]);
		peer_watch_fill(&helper->watch, &fds[WAIT_FD_WATCH]);
		poll(fds, array_length(fds), -1);
		if (fds[WAIT_FD_STATS].revents)
			print_stats(helper);
		if (fds[WAIT_FD_SIGNALS].revents)
			outcome = take_signal(helper);
		if (outcome == OUTCOME_GO_ON)
			outcome = judge_watch(helper, &fds[WAIT_FD_WATCH]);
		if (outcome == OUTCOME_GO_ON)
			outcome = judge_cable(helper, &fds[WAIT_FD_CABLE]);
	}
	return outcome;
}

typedef enum outcome (*step)(struct helper *helper);

static const step start_steps[] = {
	adopt_inherited_socket,
	exit_on_signals,
	find_broker,
	give_up_root,
	catch_signals,
	open_path_socket,
	join_network,
	enter_sandbox,
};
static const step ready_steps[] = {start_forwarding, announce};
static const step path_steps[] = {announce, meet_client, start_forwarding};
static const step run_steps[] = {start_stats, wait_for_end};

static enum outcome take_steps(struct helper *helper, const step *steps, size_t count)
{
	enum outcome outcome = OUTCOME_GO_ON;

	for (size_t i = 0; i < count && outcome == OUTCOME_GO_ON; i++)
		outcome = steps[i](helper);
	return outcome;
}

static enum outcome run(struct helper *helper)
{
	enum outcome outcome = take_steps(helper, start_steps, array_length(start_steps));

	if (outcome != OUTCOME_GO_ON)
		return outcome;
	/* Somebody who has to come first comes after the line; a vhost-user device is ready
	 * without a front-end. */
	if (helper_options_path(&helper->options) && helper->kind != CABLE_VHOST_USER)
		outcome = take_steps(helper, path_steps, array_length(path_steps));
	else
		outcome = take_steps(helper, ready_steps, array_length(ready_steps));
	if (outcome != OUTCOME_GO_ON)
		return outcome;
	return take_steps(helper, run_steps, array_length(run_steps));
}

int main(int argc, char **argv)
{
	struct helper helper = {0};
	char error[OPTIONS_ERROR_SIZE];
	enum outcome outcome;

	if (occupy_standard_fds() < 0)
		return EXIT_FAILURE;
	init_helper(&helper);
	if (helper_options_parse(argc, argv, &helper.options, error) < 0) {
		log_error("main", "%s", error);
		return EXIT_FAILURE;
	}
	switch (helper.options.action) {
	case HELPER_PRINT_HELP:
		helper_options_print_help(stdout);
		return EXIT_SUCCESS;
	case HELPER_PRINT_VERSION:
		options_print_version(stdout);
		return EXIT_SUCCESS;
	case HELPER_LIST_SHARED_INTERFACES:
		return EXIT_SUCCESS;
	case HELPER_RUN:
		break;
	}
	log_set_verbose(helper.options.is_verbose);
	log_debug("main", "vmnet-helper %s", VMNET_VERSION);
	outcome = run(&helper);
	finish_helper(&helper);
	return outcome == OUTCOME_STOP ? EXIT_SUCCESS : EXIT_FAILURE;
}
