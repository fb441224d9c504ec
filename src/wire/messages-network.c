/* The messages about one network and about its leases. */
#include "wire/messages.h"

#include "base/cleanup.h"
#include "wire/parameters.h"
#include "wire/varlink.h"

static const char *decode_network(json_t *value, void *call)
{
	return parameter_decode_network_name(
		value, ((struct describe_network_call *)call)->network);
}

static const struct parameter describe_parameters[] = {
	{.name = "network", .required = true, .decode = decode_network},
};

int describe_network_decode(
	json_t *parameters, struct describe_network_call *ret_call, char *reason)
{
	struct describe_network_call call = {0};
	int error = parameters_decode(
		parameters, describe_parameters, array_length(describe_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

static json_t *encode_settings(const struct broker_network_settings *settings)
{
	return json_pack("{s:b, s:b, s:b, s:I, s:b, s:b, s:b}", "dhcp", settings->dhcp, "dns",
		settings->dns, "routerAdvertisement", settings->router_advertisement,
		"leaseSeconds", (json_int_t)settings->lease_s, "isolation", settings->isolation,
		"lockMac", settings->lock_mac, "pinned", settings->pinned);
}

json_t *network_described_encode(
	const struct broker_network *network, const struct broker_network_details *details)
{
	cleanup_json json_t *object = json_pack("{s:o, s:s, s:o, s:I, s:I}", "network",
		broker_network_encode(network), "state", details->state, "settings",
		encode_settings(&details->settings), "connections",
		(json_int_t)details->connections, "interfaces", (json_int_t)details->interfaces);

	if (!object || member_set_text(object, "problem", details->problem) < 0)
		return NULL;
	return take_ptr(object);
}

static const char *decode_after(json_t *value, void *call)
{
	struct list_leases_call *list = call;

	if (text_to_ipv4(parameter_text_or_empty(value), &list->after) < 0)
		return "must be the IPv4 address of a lease, as the answer before had it last";
	return NULL;
}

static const struct parameter list_parameters[] = {
	{.name = "after", .decode = decode_after},
};

int list_leases_decode(json_t *parameters, struct list_leases_call *ret_call, char *reason)
{
	struct list_leases_call call = {0};
	int error = parameters_decode(
		parameters, list_parameters, array_length(list_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

static int set_interface(json_t *object, const struct listed_lease *lease)
{
	if (!*lease->interface_name)
		return 0;
	if (member_set_text(object, "interfaceName", lease->interface_name) < 0)
		return -1;
	return json_object_set_new(object, "uid", json_integer(lease->uid));
}

json_t *listed_lease_encode(const struct listed_lease *lease)
{
	char address[INET_ADDRSTRLEN];
	char mac[MAC_TEXT_SIZE];
	cleanup_json json_t *object = NULL;

	ipv4_to_text(lease->address, address);
	mac_to_text(lease->mac, mac);
	object = json_pack("{s:s, s:s, s:s, s:I}", "network", lease->network, "address", address,
		"mac", mac, "expiresIn", (json_int_t)lease->expires_in_s);
	if (!object || member_set_text(object, "hostname", lease->hostname) < 0 ||
		set_interface(object, lease) < 0)
		return NULL;
	return take_ptr(object);
}
