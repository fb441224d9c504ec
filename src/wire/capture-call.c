#include "wire/capture-call.h"

#include "base/cleanup.h"
#include "wire/parameters.h"

#include <errno.h>

static const char *decode_network(json_t *value, void *call)
{
	return parameter_decode_network_name(value, ((struct capture_call *)call)->network);
}

static const char *decode_interface(json_t *value, void *call)
{
	struct capture_call *capture = call;

	if (!*parameter_text_or_empty(value) ||
		text_copy(capture->interface, sizeof(capture->interface),
			json_string_value(value)) < 0)
		return "must be the name of an interface, as ListInterfaces tells it";
	return NULL;
}

static const char *decode_snaplen(json_t *value, void *call)
{
	json_int_t bytes = json_integer_value(value);

	if (bytes < CAPTURE_SNAPLEN_MIN || bytes > CAPTURE_SNAPLEN_DEFAULT)
		return "must be a number of bytes from 64 to 262144";
	((struct capture_call *)call)->snaplen = (uint32_t)bytes;
	return NULL;
}

static const char *decode_count(json_t *value, void *call)
{
	json_int_t count = json_integer_value(value);

	if (count < 1 || count > UINT32_MAX)
		return "must be a number of packets from 1 to 4294967295";
	((struct capture_call *)call)->count = (uint32_t)count;
	return NULL;
}

int capture_call_decode(json_t *parameters, struct capture_call *ret_call, char *reason)
{
	static const struct parameter table[] = {
		{.name = "network", .decode = decode_network},
		{.name = "interface", .decode = decode_interface},
		{.name = "snaplen", .decode = decode_snaplen},
		{.name = "count", .decode = decode_count},
	};
	struct capture_call call = {.snaplen = CAPTURE_SNAPLEN_DEFAULT};
	int error = parameters_decode(parameters, table, array_length(table), &call, reason);

	if (!error && !*call.network == !*call.interface) {
		snprintf(reason, BROKER_REASON_SIZE,
			"one of the parameters network and interface is needed, and not both");
		error = -EINVAL;
	}
	if (!error)
		*ret_call = call;
	return error;
}
