#include "broker/methods.h"
#include "broker/diagnosis.h"

#include "base/cleanup.h"
#include "base/linger.h"
#include "base/log.h"
#include "broker/access.h"
#include "broker/bridged.h"
#include "broker/capture-methods.h"
#include "broker/forward-methods.h"
#include "broker/interface.h"
#include "broker/listing.h"
#include "broker/monitor.h"
#include "broker/network-adhoc.h"
#include "broker/policy.h"
#include "broker/quotas.h"
#include "broker/service.h"
#include "broker/show-methods.h"
#include "broker/statistics.h"

#include <errno.h>
#include <string.h>

/* Some thousand full frames: the other side may sleep for a few milliseconds. */
#define SOCKET_BUFFER_BYTES (4u << 20)

struct session {
	struct peer *peer;
	struct registry *registry;
	struct network_hold *held[POLICY_NETWORKS_PER_PEER];
	size_t held_count;
	/* The call that waits for a network; its sockets are owned. */
	struct network_hold *awaited;
	struct create_interface_call create;
	int sockets[BROKER_SOCKETS_MAX];
	size_t sockets_count;
	/* What CreateInterface answers when DHCP knows of the interface; owned. */
	struct dhcp_waiter hosts;
	json_t *created;
	struct interface_fds created_fds;
	/* Interfaces that end with this connection, by number; owned. */
	uint32_t *leased;
	size_t leased_count;
	struct monitor *monitor;             /* the call that never ends; NULL: none */
	struct statistics_query *statistics; /* owned; NULL: none is being answered */
	struct capture *capture;             /* NULL: none */
};

static void reply_created(void *context)
{
	struct session *session = context;
	size_t count = session->created_fds.count;

	session->created_fds.count = 0;
	peer_reply(session->peer, take_ptr(session->created), session->created_fds.fds, count);
}

int session_new(struct peer *peer, struct registry *registry, struct session **ret_session)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	session->peer = peer;
	session->registry = registry;
	session->hosts.done = reply_created;
	session->hosts.context = session;
	*ret_session = session;
	return 0;
}

static void close_sockets(struct session *session)
{
	for (size_t i = 0; i < session->sockets_count; i++)
		linger_close_fd(session->sockets[i]);
	session->sockets_count = 0;
}

void session_free(struct session *session)
{
	if (!session)
		return;
	/* First, for what follows is told to those who stay. */
	monitor_free(session->monitor);
	capture_free(session->capture);
	for (size_t i = 0; i < session->leased_count; i++)
		bridged_end_lease(session->registry, session->leased[i]);
	free(session->leased);
	forwards_drop_holder(session->registry->forwards, session);
	for (size_t i = 0; i < session->held_count; i++)
		network_release(session->held[i]);
	network_release(session->awaited);
	close_sockets(session);
	dhcp_waiter_cancel(&session->hosts);
	statistics_cancel(session->statistics);
	json_decref(session->created);
	for (size_t i = 0; i < session->created_fds.count; i++)
		fd_close(session->created_fds.fds[i]);
	free(session);
}

static void fail_invalid(struct session *session, const char *reason)
{
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_INVALID_REQUEST, "%s", reason);
	peer_fail(session->peer, &failure);
}

static json_t *encode_network(const struct network *network)
{
	struct broker_network described;

	network_describe(network, &described);
	return broker_network_encode(&described);
}

static void reply_network(struct session *session, const struct network *network)
{
	peer_reply(session->peer, json_pack("{s:o}", "network", encode_network(network)), NULL, 0);
}

/* NULL when it is not held, or held no more because its bridge was taken away. */
static struct network *find_held(struct session *session, const char *name)
{
	for (size_t i = 0; i < session->held_count; i++) {
		struct network *network = session->held[i]->network;

		if (strcmp(network->name, name) != 0)
			continue;
		if (network->state != NETWORK_ABSENT)
			return network;
		network_release(session->held[i]);
		session->held[i] = session->held[--session->held_count];
		return NULL;
	}
	return NULL;
}

static void keep_hold(struct session *session, struct network_hold *hold)
{
	struct network *network = hold->network;

	session->held[session->held_count++] = hold;
	log_debug(session->peer->tag, "holds network %s", network->name);
	reply_network(session, network);
}

static void finish_acquire(void *context, const struct failure *failure)
{
	struct session *session = context;
	struct network_hold *hold = take_ptr(session->awaited);

	if (!failure) {
		keep_hold(session, hold);
		return;
	}
	network_release(hold);
	peer_fail(session->peer, failure);
}

static void handle_acquire(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct acquire_network_call acquire;
	struct network_hold *hold;
	char reason[BROKER_REASON_SIZE];
	char name[NETWORK_NAME_SIZE];
	struct network *network;
	struct failure failure;
	int result;

	if (acquire_network_decode(call->parameters, &acquire, reason) < 0) {
		fail_invalid(session, reason);
		return;
	}
	result = network_choose(
		session->registry, &acquire.wanted, &session->peer->credentials, name, &failure);
	network = result ? NULL : find_held(session, name);
	if (network) {
		reply_network(session, network);
		return;
	}
	if (!result) {
		network = registry_find(session->registry, name);
		result = network ? access_check(network, &session->peer->credentials, &failure) : 0;
	}
	if (!result)
		result = policy_check_hold(name, session->held_count, &failure);
	if (!result)
		result = network_acquire(session->registry, name, &session->peer->credentials,
			finish_acquire, session, &hold, &failure);
	if (result < 0) {
		peer_fail(session->peer, &failure);
	} else if (result == 1) {
		keep_hold(session, hold);
	} else {
		session->awaited = hold;
		peer_defer(session->peer);
	}
}

/* The sockets of a call, by their indexes among its fds; each can be named once. */
static int take_sockets(struct session *session, const uint32_t *indexes, size_t count,
	struct fd_list *fds, struct failure *failure)
{
	for (size_t i = 0; i < count; i++) {
		int fd = fd_list_take(fds, indexes[i]);

		if (fd < 0)
			return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
				"parameter sockets: no fd number %u came with the call",
				indexes[i]);
		session->sockets[session->sockets_count++] = fd;
	}
	return 0;
}

static int enlarge_sockets(struct session *session, uint32_t *ret_bytes, struct failure *failure)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error;

	if (session->sockets_count == 0) {
		*ret_bytes = 0;
		return 0;
	}
	error = platform_force_buffers(session->registry->platform, session->sockets,
		session->sockets_count, SOCKET_BUFFER_BYTES, ret_bytes, detail);
	if (!error)
		return 0;
	return failure_set(failure,
		error == -ENOTCONN ? BROKER_ERROR_INTERNAL : BROKER_ERROR_INVALID_REQUEST,
		"parameter sockets: %s", *detail ? detail : strerror(-error));
}

static void handle_enlarge(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct enlarge_socket_buffers_call enlarge;
	char reason[BROKER_REASON_SIZE];
	struct failure failure;
	uint32_t bytes;
	int error;

	if (enlarge_socket_buffers_decode(call->parameters, &enlarge, reason) < 0) {
		fail_invalid(session, reason);
		return;
	}
	error = take_sockets(session, enlarge.sockets, enlarge.sockets_count, fds, &failure);
	if (!error)
		error = enlarge_sockets(session, &bytes, &failure);
	close_sockets(session);
	if (error)
		peer_fail(session->peer, &failure);
	else
		peer_reply(session->peer,
			json_pack("{s:I}", "socketBufferBytes", (json_int_t)bytes), NULL, 0);
}

static json_t *encode_created(const struct interface *interface, const struct interface_fds *fds,
	uint32_t socket_buffer_bytes)
{
	const struct interface_record *record = &interface->record;
	struct created_interface created = {
		.mac = record->mac,
		.interface_id = record->interface_id,
		.address = record->address,
		.held_by_connection = interface->is_leased,
		.locked = interface->locked,
		.queues_count = (uint32_t)(fds->count - fds->vhosts_count),
		.vhosts_count = (uint32_t)fds->vhosts_count,
		.socket_buffer_bytes = socket_buffer_bytes,
	};

	network_describe(interface->network, &created.network);
	platform_interface_name(interface->number, created.interface_name);
	for (uint32_t i = 0; i < created.queues_count; i++)
		created.queues[i] = i;
	for (uint32_t i = 0; i < created.vhosts_count; i++)
		created.vhosts[i] = created.queues_count + i;
	return created_interface_encode(&created);
}

static int lease(struct session *session, struct network *network, struct interface **ret_interface,
	struct failure *failure)
{
	const struct interface_owner owner = {session->peer->uid, session->peer->pid};
	uint32_t *grown =
		reallocarray(session->leased, session->leased_count + 1, sizeof(*session->leased));
	int error;

	if (!grown)
		return failure_set(failure, BROKER_ERROR_INTERNAL, "memory is out");
	session->leased = grown;
	error = interface_create(
		network, &session->create, &owner, ret_interface, &session->created_fds, failure);
	if (!error && (*ret_interface)->is_leased)
		session->leased[session->leased_count++] = (*ret_interface)->number;
	return error;
}

/* The part of CreateInterface that needs the network to serve. */
static void create_interface(struct session *session, struct network *network)
{
	uint32_t socket_buffer_bytes;
	struct interface *interface;
	struct failure failure;
	int error = enlarge_sockets(session, &socket_buffer_bytes, &failure);

	if (!error)
		error = lease(session, network, &interface, &failure);
	close_sockets(session);
	if (error) {
		peer_fail(session->peer, &failure);
		return;
	}
	session->created = encode_created(interface, &session->created_fds, socket_buffer_bytes);
	/* Else a VM that asks at once would be given another address. */
	if (dhcp_wait_for_hosts(&network->dhcp, &session->hosts))
		peer_defer(session->peer);
	else
		reply_created(session);
}

static void finish_create(void *context, const struct failure *failure)
{
	struct session *session = context;
	struct network_hold *hold = take_ptr(session->awaited);

	if (failure) {
		close_sockets(session);
		peer_fail(session->peer, failure);
	} else {
		create_interface(session, hold->network);
	}
	/* From here on the interface is what keeps the network. */
	network_release(hold);
}

/* What can be refused before a network is made for it. */
static int check_create(
	struct session *session, const char *name, struct fd_list *fds, struct failure *failure)
{
	const struct create_interface_call *create = &session->create;
	const struct network *network = registry_find(session->registry, name);
	int error = network ? access_check(network, &session->peer->credentials, failure) : 0;

	if (!error && network)
		error = quotas_check_interface(
			network, session->peer->uid, create->queues ? create->queues : 1, failure);

	if (!error && create->has_mac)
		error = policy_check_mac(create->mac, failure);
	if (!error)
		error = take_sockets(session, create->sockets, create->sockets_count, fds, failure);
	return error;
}

static void handle_create(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct network_hold *hold;
	char reason[BROKER_REASON_SIZE];
	char name[NETWORK_NAME_SIZE];
	struct failure failure;
	int result;

	if (create_interface_decode(call->parameters, &session->create, reason) < 0) {
		fail_invalid(session, reason);
		return;
	}
	result = network_choose(session->registry, &session->create.wanted,
		&session->peer->credentials, name, &failure);
	if (!result)
		result = check_create(session, name, fds, &failure);
	if (!result)
		result = network_acquire(session->registry, name, &session->peer->credentials,
			finish_create, session, &hold, &failure);
	if (result < 0) {
		close_sockets(session);
		peer_fail(session->peer, &failure);
	} else if (result == 1) {
		create_interface(session, hold->network);
		network_release(hold);
	} else {
		session->awaited = hold;
		peer_defer(session->peer);
	}
}

static void handle_list(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct list_networks_call list;
	char reason[BROKER_REASON_SIZE];

	if (list_networks_decode(call->parameters, &list, reason) < 0)
		fail_invalid(session, reason);
	else
		peer_reply(session->peer,
			listing_make_networks(
				session->registry, &session->peer->credentials, list.after),
			NULL, 0);
}

static void handle_list_interfaces(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct list_interfaces_call list;
	char reason[BROKER_REASON_SIZE];

	if (list_interfaces_decode(call->parameters, &list, reason) < 0)
		fail_invalid(session, reason);
	else
		peer_reply(session->peer,
			listing_make_interfaces(session->registry, session->peer->uid, list.after),
			NULL, 0);
}

static void handle_capture(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	capture_handle(session->peer, session->registry, &session->capture, call);
}

static void handle_forward(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	forward_handle_add(session->peer, session->registry->forwards, session, call);
}

static void handle_list_forwards(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	forward_handle_list(session->peer, session->registry->forwards, call);
}

static void handle_remove_forward(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	forward_handle_remove(session->peer, session->registry->forwards, call);
}

static void handle_describe_network(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	show_handle_describe_network(session->peer, session->registry, call);
}

static void handle_list_leases(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	show_handle_list_leases(session->peer, session->registry, call);
}

static void handle_list_statistics(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	show_handle_list_statistics(session->peer, session->registry, call, &session->statistics);
}

static void handle_serve_counters(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	show_handle_serve_counters(session->peer, session->registry, call);
}

static void handle_diagnose(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct registry *registry = session->registry;
	struct failure failure;
	uint32_t ignored;

	if (call->parameters && json_object_size(call->parameters) > 0) {
		fail_invalid(session, "Diagnose takes no parameters");
	} else if (!rate_limit_allow(&registry->diagnoses, rate_limit_now_ms(), &ignored)) {
		failure_set(&failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"the host was looked at %d times within %d s; ask again later",
			RATE_LIMIT_BURST, RATE_LIMIT_WINDOW_MS / 1000);
		peer_fail(session->peer, &failure);
	} else {
		peer_reply(session->peer, diagnosis_make(registry, &session->peer->credentials),
			NULL, 0);
	}
}

/* A network that there is, and that the peer may use, is nobody's secret from it. */
static int check_monitor(
	struct session *session, const struct monitor_call *monitor, struct failure *failure)
{
	const struct credentials *user = &session->peer->credentials;
	const struct network *network;

	if (!*monitor->network)
		return 0;
	network = registry_find(session->registry, monitor->network);
	return network ? access_check(network, user, failure)
		       : registry_fail_unknown(session->registry, monitor->network, user, failure);
}

static void handle_monitor(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	struct monitor_call monitor;
	char reason[BROKER_REASON_SIZE];
	struct failure failure;

	if (!call->more)
		peer_reply_error(session->peer, VARLINK_SERVICE ".ExpectedMore", NULL);
	else if (monitor_decode(call->parameters, &monitor, reason) < 0)
		fail_invalid(session, reason);
	else if (check_monitor(session, &monitor, &failure) < 0)
		peer_fail(session->peer, &failure);
	else if (monitor_new(session->peer, session->registry, &monitor, &session->monitor) < 0)
		peer_close(session->peer);
}

static void handle_get_info(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	if (call->parameters && json_object_size(call->parameters) > 0)
		peer_reply_error(session->peer, VARLINK_SERVICE ".InvalidParameter",
			service_make_parameter_error(call->parameters, NULL));
	else
		peer_reply(session->peer, service_make_info(), NULL, 0);
}

static void handle_get_description(
	struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	const char *interface = json_string_value(json_object_get(call->parameters, "interface"));
	json_t *description;

	if (!interface || json_object_size(call->parameters) != 1) {
		peer_reply_error(session->peer, VARLINK_SERVICE ".InvalidParameter",
			service_make_parameter_error(call->parameters, "interface"));
		return;
	}
	description = service_make_description(interface);
	if (description)
		peer_reply(session->peer, description, NULL, 0);
	else
		peer_reply_error(session->peer, VARLINK_SERVICE ".InterfaceNotFound",
			json_pack("{s:s}", "interface", interface));
}

static const struct method {
	const char *name;
	void (*handle)(
		struct session *session, const struct varlink_call *call, struct fd_list *fds);
} methods[] = {
	{BROKER_INTERFACE ".AcquireNetwork", handle_acquire},
	{BROKER_INTERFACE ".Capture", handle_capture},
	{BROKER_INTERFACE ".CreateInterface", handle_create},
	{BROKER_INTERFACE ".DescribeNetwork", handle_describe_network},
	{BROKER_INTERFACE ".Diagnose", handle_diagnose},
	{BROKER_INTERFACE ".EnlargeSocketBuffers", handle_enlarge},
	{BROKER_INTERFACE ".Forward", handle_forward},
	{BROKER_INTERFACE ".ListForwards", handle_list_forwards},
	{BROKER_INTERFACE ".ListInterfaces", handle_list_interfaces},
	{BROKER_INTERFACE ".ListLeases", handle_list_leases},
	{BROKER_INTERFACE ".ListNetworks", handle_list},
	{BROKER_INTERFACE ".ListStatistics", handle_list_statistics},
	{BROKER_INTERFACE ".Monitor", handle_monitor},
	{BROKER_INTERFACE ".RemoveForward", handle_remove_forward},
	{BROKER_INTERFACE ".ServeCounters", handle_serve_counters},
	{VARLINK_SERVICE ".GetInfo", handle_get_info},
	{VARLINK_SERVICE ".GetInterfaceDescription", handle_get_description},
};

static void reply_unknown(struct session *session, const char *method)
{
	const char *dot = strrchr(method, '.');
	size_t length = dot ? (size_t)(dot - method) : strlen(method);

	if (service_has_interface(method, length))
		peer_reply_error(session->peer, VARLINK_SERVICE ".MethodNotFound",
			json_pack("{s:s}", "method", method));
	else
		peer_reply_error(session->peer, VARLINK_SERVICE ".InterfaceNotFound",
			json_pack("{s:s#}", "interface", method, (int)length));
}

void methods_dispatch(struct session *session, const struct varlink_call *call, struct fd_list *fds)
{
	for (size_t i = 0; i < array_length(methods); i++) {
		if (strcmp(methods[i].name, call->method) != 0)
			continue;
		methods[i].handle(session, call, fds);
		return;
	}
	reply_unknown(session, call->method);
}
