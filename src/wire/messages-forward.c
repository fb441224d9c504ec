/* The messages about forwards. */
#include "wire/messages.h"

#include "base/cleanup.h"
#include "wire/parameters.h"
#include "wire/varlink.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

static const char *const origin_names[] = {
	[FORWARD_CONFIGURED] = "configured",
	[FORWARD_HELD] = "held",
	[FORWARD_PINNED] = "pinned",
};
static_assert(array_length(origin_names) == FORWARD_ORIGIN_COUNT, "one name an origin");

static const char *decode_network(json_t *value, void *call)
{
	return parameter_decode_network_name(value, ((struct forward_call *)call)->network);
}

static const char *decode_protocol(json_t *value, void *call)
{
	struct forward_spec *spec = &((struct forward_call *)call)->spec;

	return forward_spec_set_protocol(spec, parameter_text_or_empty(value)) < 0
		       ? FORWARD_PROTOCOL_ALLOWED
		       : NULL;
}

static const char *decode_listen(json_t *value, void *call)
{
	struct forward_spec *spec = &((struct forward_call *)call)->spec;

	return forward_spec_set_listen(spec, parameter_text_or_empty(value)) < 0
		       ? FORWARD_LISTEN_ALLOWED
		       : NULL;
}

static const char *decode_target(json_t *value, void *call)
{
	struct forward_spec *spec = &((struct forward_call *)call)->spec;

	return forward_spec_set_target(spec, parameter_text_or_empty(value)) < 0
		       ? FORWARD_TARGET_ALLOWED
		       : NULL;
}

static const char *decode_pin(json_t *value, void *call)
{
	if (!json_is_boolean(value))
		return "must be true or false";
	((struct forward_call *)call)->pin = json_is_true(value);
	return NULL;
}

static const struct parameter forward_parameters[] = {
	{.name = "network", .required = true, .decode = decode_network},
	{.name = "protocol", .decode = decode_protocol},
	{.name = "listen", .required = true, .decode = decode_listen},
	{.name = "target", .required = true, .decode = decode_target},
	{.name = "pin", .decode = decode_pin},
};

int forward_call_decode(json_t *parameters, struct forward_call *ret_call, char *reason)
{
	struct forward_call call = {.pin = false};
	int error;

	forward_spec_init(&call.spec);
	error = parameters_decode(
		parameters, forward_parameters, array_length(forward_parameters), &call, reason);
	if (error)
		return error;
	error = forward_spec_settle(&call.spec);
	if (error)
		snprintf(reason, BROKER_REASON_SIZE,
			"parameters \"listen\" and \"target\" must be both IPv4 or both IPv6: a "
			"forward translates no packet from one to the other");
	else
		*ret_call = call;
	return error;
}

static const char *decode_id(json_t *value, uint32_t *ret_id)
{
	json_int_t id = json_integer_value(value);

	if (!json_is_integer(value) || id < 0 || id > UINT32_MAX)
		return "must be the id of a forward, a number that ListForwards tells";
	*ret_id = (uint32_t)id;
	return NULL;
}

static const char *decode_after(json_t *value, void *call)
{
	return decode_id(value, &((struct list_forwards_call *)call)->after);
}

static const char *decode_removed(json_t *value, void *call)
{
	return decode_id(value, &((struct remove_forward_call *)call)->id);
}

int list_forwards_decode(json_t *parameters, struct list_forwards_call *ret_call, char *reason)
{
	static const struct parameter table[] = {{.name = "after", .decode = decode_after}};
	struct list_forwards_call call = {0};
	int error = parameters_decode(parameters, table, array_length(table), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

int remove_forward_decode(json_t *parameters, struct remove_forward_call *ret_call, char *reason)
{
	static const struct parameter table[] = {
		{.name = "id", .required = true, .decode = decode_removed},
	};
	struct remove_forward_call call = {0};
	int error = parameters_decode(parameters, table, array_length(table), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

json_t *broker_forward_encode(const struct broker_forward *forward)
{
	char listen[ENDPOINT_TEXT_SIZE];
	char target[FORWARD_TARGET_SIZE];
	char address[ENDPOINT_TEXT_SIZE] = "";
	cleanup_json json_t *object = NULL;

	endpoint_to_text(&forward->spec.listen, listen);
	forward_target_to_text(&forward->spec, target);
	if (forward->is_active)
		endpoint_to_text(&forward->address, address);
	object = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:I}", "id", (json_int_t)forward->id,
		"network", forward->network, "protocol",
		forward_protocol_to_text(forward->spec.protocol), "listen", listen, "target",
		target, "origin", origin_names[forward->origin], "uid", (json_int_t)forward->uid);
	if (!object || member_set_text(object, "address", address) != 0)
		return NULL;
	return take_ptr(object);
}
