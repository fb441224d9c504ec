#include "wire/messages.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "wire/parameters.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const error_names[] = {
	[BROKER_ERROR_NOT_FOUND] = BROKER_INTERFACE ".NotFound",
	[BROKER_ERROR_NOT_ALLOWED] = BROKER_INTERFACE ".NotAllowed",
	[BROKER_ERROR_INVALID_REQUEST] = BROKER_INTERFACE ".InvalidRequest",
	[BROKER_ERROR_CREATE_FAILURE] = BROKER_INTERFACE ".CreateFailure",
	[BROKER_ERROR_INTERNAL] = BROKER_INTERFACE ".InternalError",
	[BROKER_ERROR_QUOTA_EXCEEDED] = BROKER_INTERFACE ".QuotaExceeded",
	[BROKER_ERROR_CONFLICT] = BROKER_INTERFACE ".Conflict",
};
static_assert(array_length(error_names) == BROKER_ERROR_COUNT, "every error has a name");

const char *broker_error_name(enum broker_error error)
{
	return error_names[error];
}

int broker_error_from_name(const char *name, enum broker_error *ret_error)
{
	for (size_t i = 0; i < array_length(error_names); i++)
		if (strcmp(name, error_names[i]) == 0) {
			*ret_error = (enum broker_error)i;
			return 0;
		}
	return -EINVAL;
}

json_t *broker_error_encode(enum broker_error error, const char *reason)
{
	json_t *parameters = json_pack("{s:o}", "reason", text_encode(reason));

	return parameters ? varlink_make_error(broker_error_name(error), parameters) : NULL;
}

void broker_error_decode(json_t *parameters, char *reason)
{
	const char *text = json_string_value(json_object_get(parameters, "reason"));

	snprintf(reason, BROKER_REASON_SIZE, "%s", text ? text : "");
}

static int decode_indexes(json_t *value, size_t maximum, uint32_t *ret_indexes, uint32_t *ret_count)
{
	size_t count = json_array_size(value);

	if (!json_is_array(value) || count > maximum)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		json_t *element = json_array_get(value, i);
		json_int_t index = json_integer_value(element);

		if (!json_is_integer(element) || index < 0 || index >= FD_PASS_MAX)
			return -EINVAL;
		for (size_t j = 0; j < i; j++)
			if (ret_indexes[j] == (uint32_t)index)
				return -EINVAL;
		ret_indexes[i] = (uint32_t)index;
	}
	*ret_count = (uint32_t)count;
	return 0;
}

static json_t *encode_indexes(const uint32_t *indexes, uint32_t count)
{
	cleanup_json json_t *array = json_array();

	for (uint32_t i = 0; i < count; i++)
		if (json_array_append_new(array, json_integer(indexes[i])) < 0)
			return NULL;
	return take_ptr(array);
}

static const char *decode_sockets(json_t *value, uint32_t *ret_sockets, uint32_t *ret_count)
{
	if (decode_indexes(value, BROKER_SOCKETS_MAX, ret_sockets, ret_count) < 0)
		return "must be a list of at most 2 different indexes of fds sent with the call";
	return NULL;
}

/* --- AcquireNetwork --- */

static int check_choice(const struct network_choice *choice, char *reason)
{
	const char *wrong = network_choice_check(choice);

	if (!wrong)
		return 0;
	snprintf(reason, BROKER_REASON_SIZE, "%s", wrong);
	return -EINVAL;
}

static const struct parameter acquire_parameters[] = {
	{.name = "network", .decode = network_choice_decode_network},
	{.name = "mode", .decode = network_choice_decode_mode},
	{.name = "startAddress", .decode = network_choice_decode_start},
	{.name = "endAddress", .decode = network_choice_decode_end},
	{.name = "subnetMask", .decode = network_choice_decode_mask},
	{.name = "sharedInterface", .decode = network_choice_decode_shared_interface},
};

json_t *acquire_network_encode(const struct acquire_network_call *call)
{
	cleanup_json json_t *object = json_object();

	return network_choice_encode(&call->wanted, object) == 0 ? take_ptr(object) : NULL;
}

int acquire_network_decode(json_t *parameters, struct acquire_network_call *ret_call, char *reason)
{
	struct acquire_network_call call = {0};
	int error = parameters_decode(
		parameters, acquire_parameters, array_length(acquire_parameters), &call, reason);

	if (!error)
		error = check_choice(&call.wanted, reason);
	if (!error)
		*ret_call = call;
	return error;
}

/* --- Network --- */

#define IPV6_PREFIX_LENGTH    "/64"
#define IPV6_PREFIX_TEXT_SIZE (INET6_ADDRSTRLEN + sizeof(IPV6_PREFIX_LENGTH))

static void encode_ipv6(struct in6_addr prefix, char prefix_text[IPV6_PREFIX_TEXT_SIZE],
	char gateway_text[INET6_ADDRSTRLEN])
{
	struct in6_addr gateway = prefix;

	inet_ntop(AF_INET6, &prefix, prefix_text, INET6_ADDRSTRLEN);
	strcat(prefix_text, IPV6_PREFIX_LENGTH);
	gateway.s6_addr[15] |= 1;
	inet_ntop(AF_INET6, &gateway, gateway_text, INET6_ADDRSTRLEN);
}

json_t *broker_network_encode(const struct broker_network *network)
{
	cleanup_json json_t *object = NULL;
	char subnet[SUBNET_TEXT_SIZE] = "";
	char gateway[INET_ADDRSTRLEN] = "";
	char last[INET_ADDRSTRLEN] = "";
	char prefix[IPV6_PREFIX_TEXT_SIZE] = "";
	char gateway6[INET6_ADDRSTRLEN] = "";

	if (network->subnet.prefix_length > 0)
		ipv4_subnet_to_text(network->subnet, subnet);
	if (network->gateway.s_addr != 0)
		inet_ntop(AF_INET, &network->gateway, gateway, sizeof(gateway));
	if (network->last_address.s_addr != 0)
		inet_ntop(AF_INET, &network->last_address, last, sizeof(last));
	if (network->has_ipv6)
		encode_ipv6(network->ipv6_prefix, prefix, gateway6);
	object = json_pack("{s:s, s:s, s:I, s:s, s:b}", "name", network->name, "mode",
		network->mode, "mtu", (json_int_t)network->mtu, "domain", network->domain,
		"running", network->running);
	if (member_set_text(object, "subnet", subnet) < 0 ||
		member_set_text(object, "gateway", gateway) < 0 ||
		member_set_text(object, "lastAddress", last) < 0 ||
		member_set_text(object, "ipv6Prefix", prefix) < 0 ||
		member_set_text(object, "gateway6", gateway6) < 0 ||
		member_set_text(object, "bridge", network->bridge) < 0 ||
		member_set_text(object, "description", network->description) < 0 ||
		member_set_text(object, "uplink", network->uplink) < 0)
		return NULL;
	return take_ptr(object);
}

/* The copy of a member; one that is absent or null is empty. */
static int decode_text(json_t *object, const char *key, char *text, size_t size)
{
	json_t *value = json_object_get(object, key);

	*text = '\0';
	if (!value || json_is_null(value))
		return 0;
	return json_is_string(value) ? text_copy(text, size, json_string_value(value)) : -EBADMSG;
}

static int decode_uint32(json_t *object, const char *key, uint32_t *ret_value)
{
	json_t *value = json_object_get(object, key);
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0 || number > UINT32_MAX)
		return -EBADMSG;
	*ret_value = (uint32_t)number;
	return 0;
}

static int decode_ipv6(json_t *value, struct broker_network *network)
{
	char text[IPV6_PREFIX_TEXT_SIZE];
	char *length;

	if (decode_text(value, "ipv6Prefix", text, sizeof(text)) < 0)
		return -EBADMSG;
	if (!*text)
		return 0;
	length = strchr(text, '/');
	if (!length || strcmp(length, IPV6_PREFIX_LENGTH) != 0)
		return -EBADMSG;
	*length = '\0';
	if (inet_pton(AF_INET6, text, &network->ipv6_prefix) != 1)
		return -EBADMSG;
	network->has_ipv6 = true;
	return 0;
}

/* Absent or null: left as it is. */
static int decode_optional_ipv4(json_t *object, const char *key, struct in_addr *address)
{
	char text[INET_ADDRSTRLEN];

	if (decode_text(object, key, text, sizeof(text)) < 0 ||
		(*text && text_to_ipv4(text, address) < 0))
		return -EBADMSG;
	return 0;
}

static int decode_network_addresses(json_t *value, struct broker_network *network)
{
	char subnet[SUBNET_TEXT_SIZE];

	if (decode_text(value, "subnet", subnet, sizeof(subnet)) < 0 ||
		(*subnet && text_to_ipv4_subnet(subnet, &network->subnet) < 0) ||
		decode_optional_ipv4(value, "gateway", &network->gateway) < 0)
		return -EBADMSG;
	return decode_optional_ipv4(value, "lastAddress", &network->last_address);
}

int broker_network_decode(json_t *value, struct broker_network *ret_network)
{
	struct broker_network network = {0};
	json_t *running = json_object_get(value, "running");

	if (decode_text(value, "name", network.name, sizeof(network.name)) < 0 ||
		!network_name_is_valid(network.name) ||
		decode_text(value, "mode", network.mode, sizeof(network.mode)) < 0 ||
		decode_text(value, "bridge", network.bridge, sizeof(network.bridge)) < 0 ||
		decode_text(value, "uplink", network.uplink, sizeof(network.uplink)) < 0 ||
		decode_text(value, "domain", network.domain, sizeof(network.domain)) < 0 ||
		decode_text(value, "description", network.description,
			sizeof(network.description)) < 0 ||
		decode_uint32(value, "mtu", &network.mtu) < 0 ||
		decode_network_addresses(value, &network) < 0 || decode_ipv6(value, &network) < 0)
		return -EBADMSG;
	if (!*network.mode || !json_is_boolean(running))
		return -EBADMSG;
	network.running = json_is_true(running);
	*ret_network = network;
	return 0;
}

json_t *acquired_network_encode(const struct broker_network *network)
{
	return json_pack("{s:o}", "network", broker_network_encode(network));
}

int acquired_network_decode(json_t *parameters, struct broker_network *ret_network)
{
	return broker_network_decode(json_object_get(parameters, "network"), ret_network);
}

/* --- CreateInterface --- */

static const char *create_decode_mac(json_t *value, void *call)
{
	struct create_interface_call *create = call;

	if (text_to_mac(parameter_text_or_empty(value), &create->mac) < 0 ||
		!mac_is_unicast(create->mac))
		return "must be a unicast MAC address such as \"52:54:00:12:34:56\"";
	create->has_mac = true;
	return NULL;
}

static const char *create_decode_interface_id(json_t *value, void *call)
{
	struct create_interface_call *create = call;

	if (text_to_uuid(parameter_text_or_empty(value), &create->interface_id) < 0)
		return "must be a UUID such as \"6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11\"";
	create->has_interface_id = true;
	return NULL;
}

static const char *create_decode_hostname(json_t *value, void *call)
{
	struct create_interface_call *create = call;
	const char *hostname = parameter_text_or_empty(value);

	if (!hostname_is_valid(hostname))
		return "must be 1 to 63 letters, digits and inner hyphens";
	text_copy(create->hostname, sizeof(create->hostname), hostname);
	return NULL;
}

static const char *create_decode_queues(json_t *value, void *call)
{
	struct create_interface_call *create = call;
	json_int_t queues = json_integer_value(value);

	if (!json_is_integer(value) || queues < 1 || queues > BROKER_QUEUES_MAX)
		return "must be a number from 1 to 8";
	create->queues = (uint32_t)queues;
	return NULL;
}

static const char *decode_flag(json_t *value, bool *ret_flag)
{
	if (!json_is_boolean(value))
		return "must be true or false";
	*ret_flag = json_is_true(value);
	return NULL;
}

static const char *create_decode_vhost(json_t *value, void *call)
{
	return decode_flag(value, &((struct create_interface_call *)call)->vhost);
}

static const char *create_decode_isolation(json_t *value, void *call)
{
	return decode_flag(value, &((struct create_interface_call *)call)->isolation);
}

static const char *create_decode_named(json_t *value, void *call)
{
	return decode_flag(value, &((struct create_interface_call *)call)->named);
}

static const char *create_decode_sockets(json_t *value, void *call)
{
	struct create_interface_call *create = call;

	return decode_sockets(value, create->sockets, &create->sockets_count);
}

static const struct parameter create_parameters[] = {
	{.name = "network", .decode = network_choice_decode_network},
	{.name = "mode", .decode = network_choice_decode_mode},
	{.name = "startAddress", .decode = network_choice_decode_start},
	{.name = "endAddress", .decode = network_choice_decode_end},
	{.name = "subnetMask", .decode = network_choice_decode_mask},
	{.name = "sharedInterface", .decode = network_choice_decode_shared_interface},
	{.name = "mac", .decode = create_decode_mac},
	{.name = "interfaceId", .decode = create_decode_interface_id},
	{.name = "hostname", .decode = create_decode_hostname},
	{.name = "queues", .decode = create_decode_queues},
	{.name = "vhost", .decode = create_decode_vhost},
	{.name = "isolation", .decode = create_decode_isolation},
	{.name = "named", .decode = create_decode_named},
	{.name = "sockets", .decode = create_decode_sockets},
};

json_t *create_interface_encode(const struct create_interface_call *call)
{
	cleanup_json json_t *object = json_object();
	char mac[MAC_TEXT_SIZE] = "";
	char interface_id[UUID_TEXT_SIZE] = "";

	if (call->has_mac)
		mac_to_text(call->mac, mac);
	if (call->has_interface_id)
		uuid_to_text(call->interface_id, interface_id);
	if (network_choice_encode(&call->wanted, object) < 0 ||
		member_set_text(object, "mac", mac) < 0 ||
		member_set_text(object, "interfaceId", interface_id) < 0 ||
		member_set_text(object, "hostname", call->hostname) < 0)
		return NULL;
	if (call->queues > 0 &&
		json_object_set_new(object, "queues", json_integer(call->queues)) < 0)
		return NULL;
	if (call->vhost && json_object_set_new(object, "vhost", json_true()) < 0)
		return NULL;
	if (call->isolation && json_object_set_new(object, "isolation", json_true()) < 0)
		return NULL;
	if (call->named && json_object_set_new(object, "named", json_true()) < 0)
		return NULL;
	if (call->sockets_count > 0 &&
		json_object_set_new(
			object, "sockets", encode_indexes(call->sockets, call->sockets_count)) < 0)
		return NULL;
	return take_ptr(object);
}

/* Its queue and the host's packet mover are for whoever opens it by name. */
static int check_named(const struct create_interface_call *call, char *reason)
{
	if (!call->named || (call->queues <= 1 && !call->vhost))
		return 0;
	snprintf(reason, BROKER_REASON_SIZE,
		"parameter \"named\": the program that opens a TAP by its name has its one queue, "
		"and "
		"opens /dev/vhost-net itself; leave out %s",
		call->vhost ? "vhost" : "queues");
	return -EINVAL;
}

int create_interface_decode(
	json_t *parameters, struct create_interface_call *ret_call, char *reason)
{
	struct create_interface_call call = {0};
	int error = parameters_decode(
		parameters, create_parameters, array_length(create_parameters), &call, reason);

	if (!error)
		error = check_choice(&call.wanted, reason);
	if (!error)
		error = check_named(&call, reason);
	if (!error)
		*ret_call = call;
	return error;
}

json_t *created_interface_encode(const struct created_interface *created)
{
	char mac[MAC_TEXT_SIZE];
	char interface_id[UUID_TEXT_SIZE];
	char address[INET_ADDRSTRLEN] = "";
	cleanup_json json_t *object = NULL;

	mac_to_text(created->mac, mac);
	uuid_to_text(created->interface_id, interface_id);
	if (created->address.s_addr)
		inet_ntop(AF_INET, &created->address, address, sizeof(address));
	object = json_pack("{s:o, s:s, s:s, s:s, s:b, s:b, s:o, s:o, s:I}", "network",
		broker_network_encode(&created->network), "interfaceName", created->interface_name,
		"mac", mac, "interfaceId", interface_id, "heldByConnection",
		created->held_by_connection, "locked", created->locked, "queues",
		encode_indexes(created->queues, created->queues_count), "vhosts",
		encode_indexes(created->vhosts, created->vhosts_count), "socketBufferBytes",
		(json_int_t)created->socket_buffer_bytes);
	if (!object || member_set_text(object, "address", address) != 0)
		return NULL;
	return take_ptr(object);
}

static int decode_created_identity(json_t *parameters, struct created_interface *created)
{
	char text[UUID_TEXT_SIZE];

	if (decode_text(parameters, "mac", text, sizeof(text)) < 0 ||
		text_to_mac(text, &created->mac) < 0)
		return -EBADMSG;
	if (decode_text(parameters, "interfaceId", text, sizeof(text)) < 0 ||
		text_to_uuid(text, &created->interface_id) < 0)
		return -EBADMSG;
	/* A broker that knows no such thing has none. */
	created->held_by_connection = json_is_true(json_object_get(parameters, "heldByConnection"));
	created->locked = json_is_true(json_object_get(parameters, "locked"));
	return decode_optional_ipv4(parameters, "address", &created->address);
}

int created_interface_decode(json_t *parameters, struct created_interface *ret_created)
{
	struct created_interface created = {0};

	if (acquired_network_decode(parameters, &created.network) < 0 ||
		decode_created_identity(parameters, &created) < 0 ||
		decode_text(parameters, "interfaceName", created.interface_name,
			sizeof(created.interface_name)) < 0 ||
		decode_indexes(json_object_get(parameters, "queues"), BROKER_QUEUES_MAX,
			created.queues, &created.queues_count) < 0 ||
		decode_indexes(json_object_get(parameters, "vhosts"), BROKER_QUEUES_MAX,
			created.vhosts, &created.vhosts_count) < 0 ||
		decode_uint32(parameters, "socketBufferBytes", &created.socket_buffer_bytes) < 0)
		return -EBADMSG;
	if (!*created.interface_name ||
		(created.queues_count == 0 && !created.held_by_connection) ||
		(created.vhosts_count > 0 && created.vhosts_count != created.queues_count))
		return -EBADMSG;
	*ret_created = created;
	return 0;
}

/* --- EnlargeSocketBuffers --- */

static const char *enlarge_decode_sockets(json_t *value, void *call)
{
	struct enlarge_socket_buffers_call *enlarge = call;
	const char *allowed = decode_sockets(value, enlarge->sockets, &enlarge->sockets_count);

	if (!allowed && enlarge->sockets_count == 0)
		return "must name at least one socket";
	return allowed;
}

static const struct parameter enlarge_parameters[] = {
	{.name = "sockets", .required = true, .decode = enlarge_decode_sockets},
};

json_t *enlarge_socket_buffers_encode(const struct enlarge_socket_buffers_call *call)
{
	return json_pack("{s:o}", "sockets", encode_indexes(call->sockets, call->sockets_count));
}

int enlarge_socket_buffers_decode(
	json_t *parameters, struct enlarge_socket_buffers_call *ret_call, char *reason)
{
	struct enlarge_socket_buffers_call call = {0};
	int error = parameters_decode(
		parameters, enlarge_parameters, array_length(enlarge_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

json_t *enlarged_socket_buffers_encode(uint32_t bytes)
{
	return json_pack("{s:I}", "socketBufferBytes", (json_int_t)bytes);
}

int enlarged_socket_buffers_decode(json_t *parameters, uint32_t *ret_bytes)
{
	return decode_uint32(parameters, "socketBufferBytes", ret_bytes);
}
