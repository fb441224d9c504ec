#include "base/cleanup.h"
#include "base/text.h"
#include "client/handle.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define METHOD_NAME_SIZE 128

static_assert(VMNET_BROKER_INTERFACE_QUEUES_MAX == BROKER_QUEUES_MAX, "both speak of one limit");
static_assert(VMNET_BROKER_INTERFACE_SOCKETS_MAX == BROKER_SOCKETS_MAX, "both speak of one limit");

static int convert_network(
	const struct broker_network *source, struct vmnet_broker_network *ret_network)
{
	struct vmnet_broker_network network = {
		.subnet = source->subnet.address,
		.mask = ipv4_subnet_mask(source->subnet),
		.gateway = source->gateway,
		.mtu = source->mtu,
		.has_ipv6 = source->has_ipv6,
		.ipv6_prefix = source->ipv6_prefix,
		.gateway6 = source->ipv6_prefix,
	};

	if (strcmp(source->mode, "bridged") != 0 &&
		(source->subnet.prefix_length == 0 || source->gateway.s_addr == 0))
		return -EBADMSG;
	network.last_address = source->last_address;
	text_copy(network.name, sizeof(network.name), source->name);
	text_copy(network.mode, sizeof(network.mode), source->mode);
	text_copy(network.uplink, sizeof(network.uplink), source->uplink);
	text_copy(network.bridge, sizeof(network.bridge), source->bridge);
	text_copy(network.domain, sizeof(network.domain), source->domain);
	network.gateway6.s6_addr[15] |= source->has_ipv6;
	*ret_network = network;
	return 0;
}

/* Checked here, because a name that is none must not be sent cut. */
static vmnet_broker_status_t choose_name(
	vmnet_broker_t *broker, const char *name, struct network_choice *choice)
{
	if (!name || !network_name_is_valid(name))
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"\"%.64s\" is no network name: 1 to 32 letters, digits, \"_\", \".\" or "
			"\"-\", beginning with a letter or digit",
			name ? name : "");
	text_copy(choice->network, sizeof(choice->network), name);
	return VMNET_BROKER_SUCCESS;
}

static bool copy_address(const char *text, struct in_addr *address)
{
	return !text || text_to_ipv4(text, address) == 0;
}

static vmnet_broker_status_t choose_options(vmnet_broker_t *broker,
	const struct vmnet_broker_network_options *options, struct network_choice *choice)
{
	const char *interface = options->shared_interface ? options->shared_interface : "";

	if (text_copy(choice->mode, sizeof(choice->mode),
		    options->mode ? options->mode : "shared") < 0 ||
		text_copy(choice->shared_interface, sizeof(choice->shared_interface), interface) <
			0 ||
		!copy_address(options->start_address, &choice->range.start) ||
		!copy_address(options->end_address, &choice->range.end) ||
		!copy_address(options->subnet_mask, &choice->range.mask))
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"a network's addresses are dotted quads, its mode shared, host or bridged, "
			"and an interface has at most %zu letters",
			sizeof(choice->shared_interface) - 1);
	return VMNET_BROKER_SUCCESS;
}

static vmnet_broker_status_t fail_memory(vmnet_broker_t *broker)
{
	return handle_fail(broker, VMNET_BROKER_INTERNAL_ERROR, "out of memory");
}

static vmnet_broker_status_t fail_reply(vmnet_broker_t *broker)
{
	return handle_fail(broker, VMNET_BROKER_INVALID_REPLY,
		"vmnet-broker at %s sent an answer that cannot be understood", broker->socket_path);
}

/* Takes parameters over. */
static vmnet_broker_status_t call_method(vmnet_broker_t *broker, const char *method,
	json_t *parameters, const int *fds, size_t fds_count, struct handle_answer *answer)
{
	cleanup_json json_t *message = parameters ? varlink_make_call(method, parameters) : NULL;
	struct handle_call call = {.message = message, .fds = fds, .fds_count = fds_count};

	return message ? handle_make_call(broker, &call, answer) : fail_memory(broker);
}

/* Of a network that has been chosen. */
static vmnet_broker_status_t acquire(vmnet_broker_t *broker,
	const struct acquire_network_call *call, struct vmnet_broker_network *network)
{
	cleanup_answer struct handle_answer answer;
	struct broker_network acquired;
	struct vmnet_broker_network converted;
	vmnet_broker_status_t status;

	handle_answer_init(&answer);
	if (handle_reserve_held(broker) < 0)
		return fail_memory(broker);
	status = call_method(broker, BROKER_INTERFACE ".AcquireNetwork",
		acquire_network_encode(call), NULL, 0, &answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (acquired_network_decode(answer.reply.parameters, &acquired) < 0 ||
		convert_network(&acquired, &converted) < 0)
		return fail_reply(broker);
	/* By its name it can be asked for again, however it was chosen. */
	handle_hold(broker, acquired.name);
	if (network)
		*network = converted;
	return VMNET_BROKER_SUCCESS;
}

vmnet_broker_status_t vmnet_broker_acquire(
	vmnet_broker_t *broker, const char *network_name, struct vmnet_broker_network *network)
{
	struct acquire_network_call call = {0};
	vmnet_broker_status_t status = handle_begin(broker);

	if (status == VMNET_BROKER_SUCCESS)
		status = choose_name(broker, network_name, &call.wanted);
	return status == VMNET_BROKER_SUCCESS ? acquire(broker, &call, network) : status;
}

vmnet_broker_status_t vmnet_broker_acquire_by_options(vmnet_broker_t *broker,
	const struct vmnet_broker_network_options *options, struct vmnet_broker_network *network)
{
	struct acquire_network_call call = {0};
	vmnet_broker_status_t status = handle_begin(broker);

	if (status == VMNET_BROKER_SUCCESS)
		status = choose_options(broker, options, &call.wanted);
	return status == VMNET_BROKER_SUCCESS ? acquire(broker, &call, network) : status;
}

static void count_sockets(size_t count, uint32_t *ret_indexes, uint32_t *ret_count)
{
	for (size_t i = 0; i < count; i++)
		ret_indexes[i] = (uint32_t)i;
	*ret_count = (uint32_t)count;
}

/* The options as a call; what the broker would refuse anyway is left to the broker, which says it
 * better. */
static vmnet_broker_status_t convert_options(vmnet_broker_t *broker,
	const struct vmnet_broker_interface_options *options, struct create_interface_call *call)
{
	if (options->mac) {
		call->has_mac = true;
		memcpy(call->mac.bytes, options->mac, sizeof(call->mac.bytes));
	}
	if (options->interface_id) {
		call->has_interface_id = true;
		memcpy(call->interface_id.bytes, options->interface_id,
			sizeof(call->interface_id.bytes));
	}
	if (options->hostname &&
		text_copy(call->hostname, sizeof(call->hostname), options->hostname) < 0)
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"hostname is longer than %d bytes", HOSTNAME_SIZE - 1);
	if (options->sockets_count > VMNET_BROKER_INTERFACE_SOCKETS_MAX)
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"%zu sockets given, at most %d are allowed", options->sockets_count,
			VMNET_BROKER_INTERFACE_SOCKETS_MAX);
	call->queues = options->queues;
	call->vhost = options->vhost;
	call->isolation = options->isolation;
	call->named = options->named;
	count_sockets(options->sockets_count, call->sockets, &call->sockets_count);
	return VMNET_BROKER_SUCCESS;
}

static int convert_interface(
	const struct created_interface *source, struct vmnet_broker_interface *ret_interface)
{
	struct vmnet_broker_interface interface = {
		.address = source->address,
		.held_by_connection = source->held_by_connection,
		.locked = source->locked,
		.socket_buffer_bytes = source->socket_buffer_bytes,
	};

	if (convert_network(&source->network, &interface.network) < 0)
		return -EBADMSG;
	text_copy(interface.name, sizeof(interface.name), source->interface_name);
	memcpy(interface.mac, source->mac.bytes, sizeof(interface.mac));
	memcpy(interface.interface_id, source->interface_id.bytes, sizeof(interface.interface_id));
	*ret_interface = interface;
	return 0;
}

/* The fds that an answer names, each one there and named once; taken over by ret_fds. */
static int take_fds(const uint32_t *indexes, size_t count, struct fd_list *fds, int *ret_fds)
{
	for (size_t i = 0; i < count; i++) {
		ret_fds[i] = fd_list_take(fds, indexes[i]);
		if (ret_fds[i] >= 0)
			continue;
		while (i-- > 0)
			fd_close(ret_fds[i]);
		return -EBADMSG;
	}
	return 0;
}

static int take_interface_fds(const struct created_interface *created, struct fd_list *fds,
	struct vmnet_broker_interface *interface)
{
	int error = take_fds(created->queues, created->queues_count, fds, interface->queues);

	if (error)
		return error;
	interface->queues_count = created->queues_count;
	error = take_fds(created->vhosts, created->vhosts_count, fds, interface->vhosts);
	if (!error)
		interface->vhosts_count = created->vhosts_count;
	else
		while (interface->queues_count > 0)
			fd_close(interface->queues[--interface->queues_count]);
	return error;
}

vmnet_broker_status_t vmnet_broker_create_interface(vmnet_broker_t *broker,
	const char *network_name, const struct vmnet_broker_interface_options *options,
	struct vmnet_broker_interface *interface)
{
	static const struct vmnet_broker_interface_options none;
	const struct vmnet_broker_interface_options *wanted = options ? options : &none;
	cleanup_answer struct handle_answer answer;
	struct create_interface_call call = {0};
	struct created_interface created;
	struct vmnet_broker_interface made;
	vmnet_broker_status_t status = handle_begin(broker);

	handle_answer_init(&answer);
	if (status == VMNET_BROKER_SUCCESS)
		status = network_name || !wanted->network
				 ? choose_name(broker, network_name, &call.wanted)
				 : choose_options(broker, wanted->network, &call.wanted);
	if (status == VMNET_BROKER_SUCCESS)
		status = convert_options(broker, wanted, &call);
	if (status == VMNET_BROKER_SUCCESS)
		status = call_method(broker, BROKER_INTERFACE ".CreateInterface",
			create_interface_encode(&call), wanted->sockets, wanted->sockets_count,
			&answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (created_interface_decode(answer.reply.parameters, &created) < 0 ||
		convert_interface(&created, &made) < 0 ||
		take_interface_fds(&created, &answer.fds, &made) < 0)
		return fail_reply(broker);
	if (made.queues_count > 0)
		handle_keep_namespace(broker, made.queues[0]);
	*interface = made;
	return VMNET_BROKER_SUCCESS;
}

/* The parameters of any call; the caller's. */
static vmnet_broker_status_t load_parameters(
	vmnet_broker_t *broker, const char *text, json_t **ret_parameters)
{
	json_error_t error;
	json_t *parameters =
		text ? json_loads(text, JSON_REJECT_DUPLICATES, &error) : json_object();

	if (!parameters && !text)
		return fail_memory(broker);
	if (!json_is_object(parameters)) {
		json_decref(parameters);
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"the parameters of the call are no JSON object");
	}
	*ret_parameters = parameters;
	return VMNET_BROKER_SUCCESS;
}

/* The message of any call, whose name and parameters came from outside; the caller's. */
static vmnet_broker_status_t make_message(
	vmnet_broker_t *broker, const char *method, const char *parameters, json_t **ret_message)
{
	char name[METHOD_NAME_SIZE];
	json_t *loaded = NULL;
	vmnet_broker_status_t status = handle_begin(broker);

	if (status == VMNET_BROKER_SUCCESS &&
		snprintf(name, sizeof(name), BROKER_INTERFACE ".%s", method) >= (int)sizeof(name))
		status = handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"there is no method with so long a name");
	if (status == VMNET_BROKER_SUCCESS)
		status = load_parameters(broker, parameters, &loaded);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	*ret_message = varlink_make_call(name, loaded);
	return *ret_message ? VMNET_BROKER_SUCCESS : fail_memory(broker);
}

/* reply may be NULL. */
static vmnet_broker_status_t dump_reply(
	vmnet_broker_t *broker, const struct handle_answer *answer, char **reply)
{
	if (!reply)
		return VMNET_BROKER_SUCCESS;
	*reply = answer->reply.parameters ? json_dumps(answer->reply.parameters, JSON_COMPACT)
					  : strdup("{}");
	return *reply ? VMNET_BROKER_SUCCESS : fail_memory(broker);
}

vmnet_broker_status_t vmnet_broker_call_with_fds(vmnet_broker_t *broker, const char *method,
	const char *parameters, char **reply, int *fds, size_t *fds_count)
{
	cleanup_answer struct handle_answer answer;
	cleanup_json json_t *message = NULL;
	vmnet_broker_status_t status = make_message(broker, method, parameters, &message);
	size_t room = *fds_count;

	handle_answer_init(&answer);
	if (status == VMNET_BROKER_SUCCESS)
		status = handle_make_call(
			broker, &(struct handle_call){.message = message}, &answer);
	if (status == VMNET_BROKER_SUCCESS)
		status = dump_reply(broker, &answer, reply);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	for (*fds_count = 0; *fds_count < room && *fds_count < answer.fds.count; ++*fds_count)
		fds[*fds_count] = fd_list_take(&answer.fds, *fds_count);
	return VMNET_BROKER_SUCCESS;
}

vmnet_broker_status_t vmnet_broker_call(
	vmnet_broker_t *broker, const char *method, const char *parameters, char **reply)
{
	size_t none = 0;

	return vmnet_broker_call_with_fds(broker, method, parameters, reply, NULL, &none);
}

vmnet_broker_status_t vmnet_broker_call_for_more(
	vmnet_broker_t *broker, const char *method, const char *parameters)
{
	cleanup_json json_t *message = NULL;
	vmnet_broker_status_t status = make_message(broker, method, parameters, &message);

	if (status == VMNET_BROKER_SUCCESS && json_object_set_new(message, "more", json_true()) < 0)
		status = fail_memory(broker);
	return status == VMNET_BROKER_SUCCESS
		       ? handle_send_call(broker, &(struct handle_call){.message = message})
		       : status;
}

vmnet_broker_status_t vmnet_broker_next_reply(vmnet_broker_t *broker, char **reply, bool *more)
{
	cleanup_answer struct handle_answer answer;
	vmnet_broker_status_t status = handle_begin(broker);

	handle_answer_init(&answer);
	if (status == VMNET_BROKER_SUCCESS)
		status = handle_wait_answer(broker, &answer);
	if (status == VMNET_BROKER_SUCCESS)
		status = dump_reply(broker, &answer, reply);
	if (status == VMNET_BROKER_SUCCESS && more)
		*more = answer.reply.continues;
	return status;
}

vmnet_broker_status_t vmnet_broker_enlarge_socket_buffers(
	vmnet_broker_t *broker, const int *sockets, size_t sockets_count, uint32_t *bytes)
{
	cleanup_answer struct handle_answer answer;
	struct enlarge_socket_buffers_call call;
	uint32_t enlarged;
	vmnet_broker_status_t status = handle_begin(broker);

	handle_answer_init(&answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (sockets_count < 1 || sockets_count > VMNET_BROKER_INTERFACE_SOCKETS_MAX)
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"%zu sockets given, 1 or %d are allowed", sockets_count,
			VMNET_BROKER_INTERFACE_SOCKETS_MAX);
	count_sockets(sockets_count, call.sockets, &call.sockets_count);
	status = call_method(broker, BROKER_INTERFACE ".EnlargeSocketBuffers",
		enlarge_socket_buffers_encode(&call), sockets, sockets_count, &answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (enlarged_socket_buffers_decode(answer.reply.parameters, &enlarged) < 0)
		return fail_reply(broker);
	if (bytes)
		*bytes = enlarged;
	return VMNET_BROKER_SUCCESS;
}

vmnet_broker_status_t vmnet_broker_serve_counters(
	vmnet_broker_t *broker, const char *interface_name, int *listener)
{
	cleanup_answer struct handle_answer answer;
	struct serve_counters_call call;
	uint32_t index;
	vmnet_broker_status_t status = handle_begin(broker);

	handle_answer_init(&answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (text_copy(call.interface_name, sizeof(call.interface_name), interface_name) < 0)
		return handle_fail(broker, VMNET_BROKER_INVALID_REQUEST,
			"no interface has a name of more than %zu bytes",
			sizeof(call.interface_name) - 1);
	status = call_method(broker, BROKER_INTERFACE ".ServeCounters",
		serve_counters_encode(&call), NULL, 0, &answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (served_counters_decode(answer.reply.parameters, &index) < 0 ||
		take_fds(&index, 1, &answer.fds, listener) < 0)
		return fail_reply(broker);
	return VMNET_BROKER_SUCCESS;
}
