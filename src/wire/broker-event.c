#include "wire/broker-event.h"

#include "base/cleanup.h"
#include "wire/parameters.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>

static const char *const kind_names[] = {
	[BROKER_EVENT_NETWORK] = "network",
	[BROKER_EVENT_INTERFACE] = "interface",
	[BROKER_EVENT_LEASE] = "lease",
	[BROKER_EVENT_FORWARD] = "forward",
	[BROKER_EVENT_CONFIGURATION] = "configuration",
	[BROKER_EVENT_WARNING] = "warning",
	[BROKER_EVENT_REFUSAL] = "refusal",
	[BROKER_EVENT_MISSED] = "missed",
	[BROKER_EVENT_READY] = "ready",
};
static_assert(array_length(kind_names) == BROKER_EVENT_KIND_COUNT, "one name a kind");

/* Takes value over; not 0 when memory is out. */
static int add(json_t *object, const char *key, json_t *value)
{
	return value ? json_object_set_new(object, key, value) : -ENOMEM;
}

static int add_lease(json_t *object, const struct broker_lease *lease)
{
	char mac[MAC_TEXT_SIZE];
	char address[INET_ADDRSTRLEN];
	json_t *value;

	mac_to_text(lease->mac, mac);
	ipv4_to_text(lease->address, address);
	value = json_pack("{s:s, s:s}", "mac", mac, "address", address);
	if (value && member_set_text(value, "hostname", lease->hostname) != 0) {
		json_decref(value);
		value = NULL;
	}
	return add(object, "lease", value);
}

/* Not 0 when memory is out. */
static int add_optional(json_t *object, const struct broker_event *event)
{
	int error = 0;

	if (event->network)
		error = add(object, "network", text_encode(event->network));
	if (!error && event->interface)
		error = add(object, "interface", broker_interface_encode(event->interface));
	if (!error && event->forward)
		error = add(object, "forward", broker_forward_encode(event->forward));
	if (!error && event->lease)
		error = add_lease(object, event->lease);
	if (!error && event->has_uid)
		error = add(object, "uid", json_integer(event->uid));
	if (!error && event->text)
		error = add(object, "text", text_encode(event->text));
	if (!error && event->count)
		error = add(object, "count", json_integer((json_int_t)event->count));
	return error;
}

json_t *broker_event_encode(const struct broker_event *event)
{
	cleanup_json json_t *object =
		json_pack("{s:I, s:s, s:s, s:b}", "time", (json_int_t)event->time_us, "kind",
			kind_names[event->kind], "what", event->what, "state", event->is_state);

	if (!object || add_optional(object, event) != 0)
		return NULL;
	return json_pack("{s:O}", "event", object);
}

static const char *decode_network(json_t *value, void *call)
{
	return parameter_decode_network_name(value, ((struct monitor_call *)call)->network);
}

static const char *decode_state(json_t *value, void *call)
{
	if (!json_is_boolean(value))
		return "must be true or false";
	((struct monitor_call *)call)->without_state = json_is_false(value);
	return NULL;
}

int monitor_decode(json_t *parameters, struct monitor_call *ret_call, char *reason)
{
	static const struct parameter table[] = {
		{.name = "network", .decode = decode_network},
		{.name = "state", .decode = decode_state},
	};
	struct monitor_call call = {0};
	int error = parameters_decode(parameters, table, array_length(table), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}
