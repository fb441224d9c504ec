/* ListNetworks and ListInterfaces, and an interface as the answer has it. */
#include "wire/messages.h"

#include "base/cleanup.h"
#include "wire/parameters.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <errno.h>

static int set_interface_record(json_t *object, const struct broker_interface *interface)
{
	char mac[MAC_TEXT_SIZE];
	char interface_id[UUID_TEXT_SIZE];
	char address[INET_ADDRSTRLEN] = "";

	if (!interface->has_record)
		return 0;
	mac_to_text(interface->mac, mac);
	uuid_to_text(interface->interface_id, interface_id);
	if (interface->address.s_addr)
		inet_ntop(AF_INET, &interface->address, address, sizeof(address));
	if (member_set_text(object, "mac", mac) < 0 ||
		member_set_text(object, "interfaceId", interface_id) < 0 ||
		member_set_text(object, "address", address) < 0 ||
		member_set_text(object, "hostname", interface->hostname) < 0)
		return -ENOMEM;
	return json_object_set_new(object, "uid", json_integer(interface->uid));
}

json_t *broker_interface_encode(const struct broker_interface *interface)
{
	cleanup_json json_t *object = json_pack("{s:s, s:s, s:I, s:b, s:b, s:b}", "network",
		interface->network, "interfaceName", interface->interface_name, "queues",
		(json_int_t)interface->queues, "isolated", interface->isolated, "locked",
		interface->locked, "named", interface->named);

	return object && set_interface_record(object, interface) == 0 ? take_ptr(object) : NULL;
}

static const char *list_networks_decode_after(json_t *value, void *call)
{
	struct list_networks_call *list = call;

	if (!json_is_string(value) ||
		text_copy(list->after, sizeof(list->after), json_string_value(value)) < 0)
		return "must be the name of a network, as the answer before had it last";
	return NULL;
}

static const struct parameter list_networks_parameters[] = {
	{.name = "after", .decode = list_networks_decode_after},
};

int list_networks_decode(json_t *parameters, struct list_networks_call *ret_call, char *reason)
{
	struct list_networks_call call = {0};
	int error = parameters_decode(parameters, list_networks_parameters,
		array_length(list_networks_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

static const char *list_interfaces_decode_after(json_t *value, void *call)
{
	struct list_interfaces_call *list = call;

	if (!json_is_string(value) ||
		text_copy(list->after, sizeof(list->after), json_string_value(value)) < 0)
		return "must be the name of an interface";
	return NULL;
}

static const struct parameter list_interfaces_parameters[] = {
	{.name = "after", .decode = list_interfaces_decode_after},
};

int list_interfaces_decode(json_t *parameters, struct list_interfaces_call *ret_call, char *reason)
{
	struct list_interfaces_call call = {0};
	int error = parameters_decode(parameters, list_interfaces_parameters,
		array_length(list_interfaces_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}
