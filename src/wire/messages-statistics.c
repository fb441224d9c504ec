/* The messages about what was counted: of the broker, and of a helper that it asks. */
#include "wire/messages.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "wire/parameters.h"
#include "wire/varlink.h"

#include <errno.h>

static const char *decode_name(json_t *value, char *ret_name)
{
	if (!json_is_string(value) || text_copy(ret_name, 16, json_string_value(value)) < 0)
		return "must be the name of an interface";
	return NULL;
}

static const char *decode_after(json_t *value, void *call)
{
	return decode_name(value, ((struct list_statistics_call *)call)->after);
}

static const struct parameter list_parameters[] = {
	{.name = "after", .decode = decode_after},
};

int list_statistics_decode(json_t *parameters, struct list_statistics_call *ret_call, char *reason)
{
	struct list_statistics_call call = {0};
	int error = parameters_decode(
		parameters, list_parameters, array_length(list_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

static const char *decode_interface_name(json_t *value, void *call)
{
	return decode_name(value, ((struct serve_counters_call *)call)->interface_name);
}

static const struct parameter serve_parameters[] = {
	{.name = "interfaceName", .required = true, .decode = decode_interface_name},
};

json_t *serve_counters_encode(const struct serve_counters_call *call)
{
	return json_pack("{s:s}", "interfaceName", call->interface_name);
}

int serve_counters_decode(json_t *parameters, struct serve_counters_call *ret_call, char *reason)
{
	struct serve_counters_call call = {0};
	int error = parameters_decode(
		parameters, serve_parameters, array_length(serve_parameters), &call, reason);

	if (!error)
		*ret_call = call;
	return error;
}

json_t *served_counters_encode(uint32_t listener)
{
	return json_pack("{s:I}", "listener", (json_int_t)listener);
}

int served_counters_decode(json_t *parameters, uint32_t *ret_listener)
{
	const json_t *value = json_object_get(parameters, "listener");
	json_int_t index = json_integer_value(value);

	if (!json_is_integer(value) || index < 0 || index >= FD_PASS_MAX)
		return -EBADMSG;
	*ret_listener = (uint32_t)index;
	return 0;
}

/* --- Traffic --- */

static json_t *encode_counters(const struct traffic_counters *counters)
{
	return json_pack("{s:I, s:I, s:I}", "packets", (json_int_t)counters->packets, "bytes",
		(json_int_t)counters->bytes, "drops", (json_int_t)counters->drops);
}

json_t *traffic_encode(const struct traffic *traffic)
{
	return json_pack("{s:o, s:o}", "hostToVm", encode_counters(&traffic->host_to_vm),
		"vmToHost", encode_counters(&traffic->vm_to_host));
}

static int decode_counter(const json_t *object, const char *key, uint64_t *ret_counter)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EBADMSG;
	*ret_counter = (uint64_t)json_integer_value(value);
	return 0;
}

static int decode_counters(
	const json_t *object, const char *key, struct traffic_counters *ret_counters)
{
	const json_t *value = json_object_get(object, key);

	if (decode_counter(value, "packets", &ret_counters->packets) < 0 ||
		decode_counter(value, "bytes", &ret_counters->bytes) < 0)
		return -EBADMSG;
	return decode_counter(value, "drops", &ret_counters->drops);
}

int traffic_from_text(const char *bytes, size_t size, struct traffic *ret_traffic)
{
	struct traffic traffic = {0};
	cleanup_json json_t *object = NULL;

	if (size > TRAFFIC_TEXT_MAX)
		return -EMSGSIZE;
	object = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, NULL);
	if (decode_counters(object, "hostToVm", &traffic.host_to_vm) < 0 ||
		decode_counters(object, "vmToHost", &traffic.vm_to_host) < 0)
		return -EBADMSG;
	*ret_traffic = traffic;
	return 0;
}

json_t *broker_statistics_encode(const struct broker_statistics *statistics)
{
	cleanup_json json_t *object = json_pack("{s:s, s:s}", "network", statistics->network,
		"interfaceName", statistics->interface_name);

	if (!object || member_set_text(object, "hostname", statistics->hostname) < 0)
		return NULL;
	if (statistics->has_uid &&
		json_object_set_new(object, "uid", json_integer(statistics->uid)) < 0)
		return NULL;
	if (statistics->has_kernel &&
		json_object_set_new(object, "kernel", traffic_encode(&statistics->kernel)) < 0)
		return NULL;
	if (statistics->has_helper &&
		json_object_set_new(object, "helper", traffic_encode(&statistics->helper)) < 0)
		return NULL;
	return take_ptr(object);
}
