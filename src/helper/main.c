/*
 * vmnet-helper: the cable between one VM's socket and a TAP on a network.
 *
 * Startup, in this order; nothing is on stdout before all that can fail has succeeded:
 *   options -> --fd checked -> a broker (as root: started if there is none) -> root's identity
 *   given up -> signals (until then they end it at once) -> path locked and bound -> interface
 *   -> sandbox
 *   --fd, --vhost-user: forwarding starts -> the line on stdout
 *   --socket, --stream: the line on stdout -> the client, which is started on it -> forwarding
 *
 * Then loop.h waits for the end. See socket-server.h for the client's handshake, forward.h for the
 * data path, peer-watch.h for the VM's death.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "client/start-broker.h"
#include "config.h"
#include "helper/attach.h"
#include "helper/cable.h"
#include "helper/helper-options.h"
#include "helper/loop.h"
#include "helper/peer-watch.h"
#include "helper/privileges.h"
#include "helper/shared-interfaces.h"
#include "helper/socket-server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The original sizes the VM's queue with 4 MiB: two milliseconds of a fast guest. Below a quarter
 * of it bursts of one TCP window are lost. */
#define SOCKET_BUFFER_GOOD (1u << 20)

/* Who asks at the same moment; the broker leaves out whom it cannot ask. */
#define COUNTERS_BACKLOG 16

struct helper {
	struct helper_options options;
	vmnet_broker_t *broker;
	int signals;
	enum cable_kind kind;
	int vm_socket; /* --fd */
	struct socket_server server;
	struct vmnet_broker_interface interface;
	int interface_fd; /* of a link that does not tell when it goes; else -1 */
	int counters_listener;
	struct direction_counters strangers; /* messages dropped while waiting for the client */
	struct cable cable;
	struct peer_watch watch;
};

static void init_helper(struct helper *helper)
{
	helper->signals = helper->vm_socket = helper->interface_fd = -1;
	helper->counters_listener = -1;
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
	fd_close(helper->interface_fd);
	fd_close(helper->counters_listener);
	fd_close(helper->signals);
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
	char notes[START_BROKER_NOTE_SIZE];
	char *rest = notes;
	const char *line;

	helper->broker = start_broker(notes, reason);
	if (!helper->broker) {
		log_error("main", "%s", reason);
		return OUTCOME_FAILED;
	}
	while ((line = strsep(&rest, "\n")))
		if (*line)
			log_info("main", "%s", line);
	return OUTCOME_GO_ON;
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

static enum outcome take_interface(struct helper *helper, const struct attach_request *request)
{
	const struct vmnet_broker_interface *interface = &helper->interface;

	if (request->status != VMNET_BROKER_SUCCESS) {
		log_error("main", "%s", request->reason);
		return OUTCOME_FAILED;
	}
	helper->interface = request->interface;
	helper->counters_listener = request->counters_listener;
	if (interface->held_by_connection)
		helper->interface_fd = fcntl(interface->queues[0], F_DUPFD_CLOEXEC, 0);
	log_debug("main", "interface %s joined network \"%s\"", interface->name,
		interface->network.name);
	if (interface->locked)
		log_info("main",
			"network \"%s\" takes frames from the MAC and address that it gives only: "
			"the "
			"VM must use both",
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
	outcome = loop_wait_for(helper->signals, request->done_event, POLLIN);
	/* After a stop the thread may be in the middle of it: the process ends with the request. */
	if (outcome != OUTCOME_GO_ON)
		return outcome;
	attach_request_wait(request);
	outcome = take_interface(helper, request);
	if (outcome == OUTCOME_GO_ON)
		helper->broker = attach_request_take_broker(request);
	attach_request_free(request);
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
	outcome = loop_wait_for(helper->signals, STDOUT_FILENO, POLLOUT);
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
		enum outcome outcome =
			loop_wait_for(helper->signals, helper->server.socket, POLLIN);

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
	/* Not before: until now nobody would have answered. */
	if (!error && listen(helper->counters_listener, COUNTERS_BACKLOG) < 0)
		fd_close(take_fd(&helper->counters_listener));
	if (!error)
		return OUTCOME_GO_ON;
	log_error("main", "cannot forward: %s", strerror(-error));
	return OUTCOME_FAILED;
}

static enum outcome run_until_end(struct helper *helper)
{
	struct loop loop = {
		.signals = helper->signals,
		.interface_name = helper->interface.name,
		.interface_fd = helper->interface_fd,
		.strangers = &helper->strangers,
		.cable = &helper->cable,
		.watch = &helper->watch,
		.counters_listener = helper->counters_listener,
	};

	return loop_run(&loop, helper->options.stats_interval_seconds);
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
	return outcome == OUTCOME_GO_ON ? run_until_end(helper) : outcome;
}

int main(int argc, char **argv)
{
	/* Static: after a stop, a request under way reads the options until the process ends. */
	static struct helper helper;
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
		shared_interfaces_print(stdout);
		return EXIT_SUCCESS;
	case HELPER_RUN:
		break;
	}
	/* Whoever reads the log may go away before the VM does. */
	signal(SIGPIPE, SIG_IGN);
	log_set_verbose(helper.options.is_verbose);
	log_debug("main", "vmnet-helper %s", VMNET_VERSION);
	outcome = run(&helper);
	finish_helper(&helper);
	return outcome == OUTCOME_STOP ? EXIT_SUCCESS : EXIT_FAILURE;
}
