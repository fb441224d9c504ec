#include "client/handle.h"

#include "base/cleanup.h"
#include "base/tap-namespace.h"
#include "base/user-paths.h"
#include "client/status.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* A call may make a network first, which waits for its DHCP server; a broker that needs longer is
 * stuck. */
#define CALL_TIMEOUT_MS 60000
/* Between attempts to reach a broker that went away: first and longest. */
#define RETRY_FIRST_MS 50
#define RETRY_LAST_MS  2000

vmnet_broker_status_t handle_fail(
	vmnet_broker_t *broker, vmnet_broker_status_t status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(broker->reason, sizeof(broker->reason), format, arguments);
	va_end(arguments);
	return status;
}

/* --- the connection and the handle's fd --- */

static void arm_timer(vmnet_broker_t *broker, uint32_t delay_ms)
{
	struct itimerspec when = {
		.it_value = {.tv_sec = delay_ms / 1000, .tv_nsec = delay_ms % 1000 * 1000000L},
	};

	timerfd_settime(broker->timer, 0, &when, NULL);
}

static void arm_retry(vmnet_broker_t *broker)
{
	arm_timer(broker, broker->retry_ms);
	broker->retry_ms *= 2;
	if (broker->retry_ms > RETRY_LAST_MS)
		broker->retry_ms = RETRY_LAST_MS;
}

static void drop_connection(vmnet_broker_t *broker)
{
	if (!broker->connection)
		return;
	/* Before the close: a child that inherited the socket would keep it in the epoll set
	 * otherwise. */
	epoll_ctl(broker->epoll, EPOLL_CTL_DEL, connection_get_fd(broker->connection), NULL);
	connection_close(take_ptr(broker->connection));
	for (size_t i = 0; i < broker->held_count; i++)
		broker->held[i].state = HELD_LOST;
	broker->is_restoring = false;
}

static vmnet_broker_status_t fail_connection(vmnet_broker_t *broker, int error)
{
	bool is_nonsense = error == -EBADMSG || error == -EMSGSIZE;

	drop_connection(broker);
	arm_retry(broker);
	if (is_nonsense)
		return handle_fail(broker, VMNET_BROKER_INVALID_REPLY,
			"what answers at %s does not speak as vmnet-broker does",
			broker->socket_path);
	if (error == -ETIMEDOUT)
		return handle_fail(broker, VMNET_BROKER_CONNECTION_FAILURE,
			"vmnet-broker at %s did not answer within %d seconds", broker->socket_path,
			CALL_TIMEOUT_MS / 1000);
	return handle_fail(broker, VMNET_BROKER_CONNECTION_FAILURE,
		"the connection to vmnet-broker at %s broke: %s", broker->socket_path,
		strerror(-error));
}

/* The directory of who has no session is in /tmp, and goes with his broker: then anybody can make
 * it, so that who listens there is looked at each time. -EPERM: it is not this user. */
static int open_connection(vmnet_broker_t *broker, int64_t deadline)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct connection *connection;
	int error = connection_open(broker->socket_path, deadline, &connection);

	if (error)
		return error;
	if (broker->is_own_path && !connection_is_with_own_user(connection))
		error = -EPERM;
	else if (epoll_ctl(broker->epoll, EPOLL_CTL_ADD, connection_get_fd(connection), &event) < 0)
		error = -errno;
	if (error) {
		connection_close(connection);
		return error;
	}
	broker->connection = connection;
	return 0;
}

static const char *explain_open(int error)
{
	return error == -EPERM ? "a process of another user listens there" : strerror(-error);
}

static vmnet_broker_status_t fail_open(vmnet_broker_t *broker, int error)
{
	arm_retry(broker);
	return handle_fail(broker, VMNET_BROKER_CONNECTION_FAILURE,
		"cannot connect to vmnet-broker at %s: %s", broker->socket_path,
		explain_open(error));
}

/* --- holding networks over the loss of a connection --- */

static struct held_network *find_held(const vmnet_broker_t *broker, const char *name)
{
	for (size_t i = 0; i < broker->held_count; i++)
		if (strcmp(broker->held[i].name, name) == 0)
			return &broker->held[i];
	return NULL;
}

static struct held_network *find_in_state(const vmnet_broker_t *broker, enum held_state state)
{
	for (size_t i = 0; i < broker->held_count; i++)
		if (broker->held[i].state == state)
			return &broker->held[i];
	return NULL;
}

static int send_acquire(vmnet_broker_t *broker, const char *name, int64_t deadline)
{
	struct acquire_network_call call = {0};
	cleanup_json json_t *message = NULL;
	json_t *parameters;

	text_copy(call.wanted.network, sizeof(call.wanted.network), name);
	parameters = acquire_network_encode(&call);
	if (parameters)
		message = varlink_make_call(BROKER_INTERFACE ".AcquireNetwork", parameters);
	return message ? connection_send(broker->connection, message, NULL, 0, deadline) : -ENOMEM;
}

/* Takes the answer for one lost network; 1 when it came. */
static int receive_restored(vmnet_broker_t *broker, struct held_network *held, int64_t deadline)
{
	cleanup_fds struct fd_list fds;
	cleanup_json json_t *message = NULL;
	struct varlink_reply reply;
	int result;

	fd_list_init(&fds);
	result = connection_receive(broker->connection, deadline, &message, &fds);
	if (result <= 0)
		return result;
	if (varlink_reply_decode(message, &reply) < 0)
		return -EBADMSG;
	held->state = reply.error ? HELD_REFUSED : HELD_HERE;
	if (reply.error)
		status_from_reply(&reply, broker->reason);
	return 1;
}

/*
 * Acquires again, one after the other, what the last connection held. Returns 1 when no network is
 * lost any more, 0 when (CONNECTION_NO_WAIT) an answer is not there yet, or negative errno of the
 * connection.
 */
static int restore_networks(vmnet_broker_t *broker, int64_t deadline)
{
	struct held_network *held;
	bool was_lost = false;

	while ((held = find_in_state(broker, HELD_LOST))) {
		int result;

		was_lost = true;

		if (!broker->is_restoring) {
			result = send_acquire(broker, held->name, deadline);
			if (result < 0)
				return result;
			broker->is_restoring = true;
			broker->restore_deadline = deadline_after(CALL_TIMEOUT_MS);
			arm_timer(broker, CALL_TIMEOUT_MS);
		}
		result = receive_restored(broker, held, deadline);
		if (result <= 0)
			return result;
		broker->is_restoring = false;
	}
	if (was_lost && find_in_state(broker, HELD_REFUSED))
		arm_retry(broker);
	else if (was_lost)
		broker->retry_ms = RETRY_FIRST_MS;
	return 1;
}

/* True while the other side is there and silent, as it has to be between calls. */
static bool is_connection_quiet(vmnet_broker_t *broker)
{
	cleanup_fds struct fd_list fds;
	cleanup_json json_t *message = NULL;

	fd_list_init(&fds);
	return connection_receive(broker->connection, CONNECTION_NO_WAIT, &message, &fds) == 0;
}

vmnet_broker_status_t handle_begin(vmnet_broker_t *broker)
{
	broker->reason[0] = '\0';
	if (broker->owner != getpid())
		return handle_fail(broker, VMNET_BROKER_CONNECTION_FAILURE,
			"the connection belongs to the process that made it, %d",
			(int)broker->owner);
	return VMNET_BROKER_SUCCESS;
}

static void ask_again_for_refused(vmnet_broker_t *broker)
{
	struct held_network *held;

	while ((held = find_in_state(broker, HELD_REFUSED)))
		held->state = HELD_LOST;
}

/* Whether everything that should be held is held. */
static vmnet_broker_status_t report_held(vmnet_broker_t *broker)
{
	for (size_t i = 0; i < broker->held_count; i++) {
		if (broker->held[i].state == HELD_HERE)
			continue;
		if (!*broker->reason)
			handle_fail(broker, VMNET_BROKER_CONNECTION_FAILURE,
				"network \"%s\" is not acquired again yet", broker->held[i].name);
		return VMNET_BROKER_CONNECTION_FAILURE;
	}
	return VMNET_BROKER_SUCCESS;
}

/* A connection that has everything held, for a call. */
static vmnet_broker_status_t ensure_connection(vmnet_broker_t *broker, int64_t deadline)
{
	int result;

	if (broker->connection && !broker->is_restoring && !is_connection_quiet(broker))
		drop_connection(broker);
	if (!broker->connection) {
		result = open_connection(broker, deadline);
		if (result < 0)
			return fail_open(broker, result);
	}
	result = restore_networks(broker, deadline);
	return result < 0 ? fail_connection(broker, result) : VMNET_BROKER_SUCCESS;
}

vmnet_broker_status_t vmnet_broker_dispatch(vmnet_broker_t *broker)
{
	vmnet_broker_status_t status = handle_begin(broker);
	uint64_t ticks;
	int result;

	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (read(broker->timer, &ticks, sizeof(ticks)) > 0)
		ask_again_for_refused(broker);
	if (broker->connection && !broker->is_restoring && !is_connection_quiet(broker))
		drop_connection(broker);
	if (!broker->connection) {
		result = open_connection(broker, CONNECTION_NO_WAIT);
		if (result < 0)
			return fail_open(broker, result);
	}
	result = restore_networks(broker, CONNECTION_NO_WAIT);
	if (result == 0 && deadline_has_passed(broker->restore_deadline))
		result = -ETIMEDOUT;
	if (result < 0)
		return fail_connection(broker, result);
	return report_held(broker);
}

int vmnet_broker_get_fd(const vmnet_broker_t *broker)
{
	return broker->epoll;
}

void handle_keep_namespace(vmnet_broker_t *broker, int tap)
{
	int fd;

	if (tap_namespace_open(tap, &fd) < 0)
		return;
	fd_close(broker->network_namespace);
	broker->network_namespace = fd;
}

int handle_reserve_held(vmnet_broker_t *broker)
{
	struct held_network *held =
		reallocarray(broker->held, broker->held_count + 1, sizeof(*broker->held));

	if (!held)
		return -ENOMEM;
	broker->held = held;
	return 0;
}

void handle_hold(vmnet_broker_t *broker, const char *name)
{
	struct held_network *held = find_held(broker, name);

	if (!held) {
		held = &broker->held[broker->held_count++];
		text_copy(held->name, sizeof(held->name), name);
	}
	held->state = HELD_HERE;
}

/* --- calls --- */

void handle_answer_init(struct handle_answer *answer)
{
	*answer = (struct handle_answer){0};
	fd_list_init(&answer->fds);
}

void handle_answer_done(struct handle_answer *answer)
{
	json_decref(answer->message);
	fd_list_done(&answer->fds);
}

static int exchange(vmnet_broker_t *broker, const struct handle_call *call, int64_t deadline,
	struct handle_answer *ret_answer)
{
	int result = connection_send(
		broker->connection, call->message, call->fds, call->fds_count, deadline);

	/* Who refuses a connection says why and hangs up: that can be read still. */
	if (result < 0 && result != -EPIPE && result != -ECONNRESET)
		return result;
	result = connection_receive(
		broker->connection, deadline, &ret_answer->message, &ret_answer->fds);
	if (result < 0)
		return result;
	return varlink_reply_decode(ret_answer->message, &ret_answer->reply);
}

/*
 * A broker that was restarted since the last call is noticed by the first call that fails on the
 * old connection. Every call may be made twice: acquiring is idempotent, and an interface whose fds
 * nobody received is gone.
 */
vmnet_broker_status_t handle_make_call(
	vmnet_broker_t *broker, const struct handle_call *call, struct handle_answer *ret_answer)
{
	int64_t deadline = deadline_after(CALL_TIMEOUT_MS);
	bool may_be_stale = broker->connection != NULL;
	int error;

	for (;;) {
		vmnet_broker_status_t status = ensure_connection(broker, deadline);

		if (status != VMNET_BROKER_SUCCESS)
			return status;
		error = exchange(broker, call, deadline, ret_answer);
		if (!error)
			break;
		if (!may_be_stale || (error != -ECONNRESET && error != -EPIPE))
			return fail_connection(broker, error);
		drop_connection(broker);
		may_be_stale = false;
	}
	if (ret_answer->reply.error)
		return status_from_reply(&ret_answer->reply, broker->reason);
	return VMNET_BROKER_SUCCESS;
}

vmnet_broker_status_t handle_send_call(vmnet_broker_t *broker, const struct handle_call *call)
{
	int64_t deadline = deadline_after(CALL_TIMEOUT_MS);
	vmnet_broker_status_t status = ensure_connection(broker, deadline);
	int error;

	if (status != VMNET_BROKER_SUCCESS)
		return status;
	error = connection_send(
		broker->connection, call->message, call->fds, call->fds_count, deadline);
	return error ? fail_connection(broker, error) : VMNET_BROKER_SUCCESS;
}

vmnet_broker_status_t handle_wait_answer(vmnet_broker_t *broker, struct handle_answer *ret_answer)
{
	int result;

	if (!broker->connection)
		return fail_connection(broker, -ENOTCONN);
	do
		result = connection_receive(broker->connection, deadline_after(CALL_TIMEOUT_MS),
			&ret_answer->message, &ret_answer->fds);
	while (result == -ETIMEDOUT);
	if (result >= 0)
		result = varlink_reply_decode(ret_answer->message, &ret_answer->reply);
	if (result < 0)
		return fail_connection(broker, result);
	if (ret_answer->reply.error)
		return status_from_reply(&ret_answer->reply, broker->reason);
	return VMNET_BROKER_SUCCESS;
}

const char *vmnet_broker_reason(const vmnet_broker_t *broker)
{
	return broker->reason;
}

/* --- making and unmaking --- */

/* Lets go of what the handle has, without a word to the kernel objects that a parent process may
 * still use. */
static void free_handle(vmnet_broker_t *broker)
{
	if (!broker)
		return;
	connection_close(broker->connection);
	fd_close(broker->epoll);
	fd_close(broker->timer);
	fd_close(broker->network_namespace);
	free(broker->socket_path);
	free(broker->held);
	free(broker);
}
DEFINE_CLEANUP(vmnet_broker_t, free_handle)

void handle_abandon(vmnet_broker_t *broker)
{
	if (broker->connection)
		fd_close(connection_get_fd(broker->connection));
	fd_close(broker->epoll);
	fd_close(broker->timer);
	fd_close(broker->network_namespace);
}

void vmnet_broker_close(vmnet_broker_t *broker)
{
	free_handle(broker);
}

static int new_handle(vmnet_broker_t **ret_broker)
{
	struct epoll_event event = {.events = EPOLLIN};
	cleanup_with(free_handle) vmnet_broker_t *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return -ENOMEM;
	broker->epoll = -1;
	broker->timer = -1;
	broker->network_namespace = -1;
	broker->owner = getpid();
	broker->retry_ms = RETRY_FIRST_MS;
	broker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (broker->epoll < 0)
		return -errno;
	broker->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (broker->timer < 0)
		return -errno;
	if (epoll_ctl(broker->epoll, EPOLL_CTL_ADD, broker->timer, &event) < 0)
		return -errno;
	*ret_broker = take_ptr(broker);
	return 0;
}

/* What connecting came to over all paths. */
struct search {
	vmnet_broker_t *broker;
	int64_t deadline;
	bool was_forbidden;
	bool is_connected;
	char tried[BROKER_REASON_SIZE];
};

static void note_failure(struct search *search, const char *path, int error)
{
	size_t used = strlen(search->tried);

	snprintf(search->tried + used, sizeof(search->tried) - used, "%s%s: %s",
		used > 0 ? "; " : "", path, explain_open(error));
	if (error == -EACCES || error == -EPERM)
		search->was_forbidden = true;
}

/* The handle stays with the first socket that answers: another broker's networks are other
 * networks. */
static void try_path(struct search *search, const char *path)
{
	int error;

	if (search->is_connected)
		return;
	free(search->broker->socket_path);
	search->broker->socket_path = strdup(path);
	error = search->broker->socket_path ? open_connection(search->broker, search->deadline)
					    : -ENOMEM;
	if (error)
		note_failure(search, path, error);
	search->is_connected = error == 0;
}

static void try_all_paths(struct search *search)
{
	const char *named = secure_getenv("VMNET_BROKER_SOCKET");
	char runtime_directory[PATH_MAX];
	cleanup_free char *own = NULL;

	if (named && *named) {
		try_path(search, named);
		return;
	}
	try_path(search, SYSTEM_BROKER_SOCKET);
	if (search->is_connected ||
		user_runtime_directory(runtime_directory, sizeof(runtime_directory)) < 0)
		return;
	if (asprintf(&own, "%s/socket", runtime_directory) < 0) {
		own = NULL;
		return;
	}
	search->broker->is_own_path = true;
	try_path(search, own);
}

vmnet_broker_t *vmnet_broker_connect(
	const char *socket_path, vmnet_broker_status_t *status, char *reason, size_t reason_size)
{
	cleanup_with(free_handle) vmnet_broker_t *broker = NULL;
	struct search search = {.deadline = deadline_after(CALL_TIMEOUT_MS)};
	vmnet_broker_status_t result = VMNET_BROKER_SUCCESS;
	int error = new_handle(&broker);

	search.broker = broker;
	if (error)
		snprintf(search.tried, sizeof(search.tried), "%s", strerror(-error));
	else if (socket_path)
		try_path(&search, socket_path);
	else
		try_all_paths(&search);
	if (!search.is_connected)
		result = search.was_forbidden ? VMNET_BROKER_NOT_ALLOWED
					      : VMNET_BROKER_CONNECTION_FAILURE;
	if (status)
		*status = result;
	if (reason && reason_size > 0)
		snprintf(reason, reason_size, "%s", search.tried);
	return search.is_connected ? take_ptr(broker) : NULL;
}
