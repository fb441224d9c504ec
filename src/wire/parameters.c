#include "wire/parameters.h"

#include "base/cleanup.h"
#include "base/text.h"
#include "wire/messages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int refuse_unknown(
	const char *key, const struct parameter *table, size_t count, char *reason)
{
	int length = snprintf(
		reason, BROKER_REASON_SIZE, "unknown parameter \"%.64s\"; there are: ", key);

	for (size_t i = 0; i < count; i++)
		length += snprintf(reason + length, BROKER_REASON_SIZE - (size_t)length, "%s%s",
			i > 0 ? ", " : "", table[i].name);
	return -EINVAL;
}

static int check_keys(json_t *parameters, const struct parameter *table, size_t count, char *reason)
{
	const char *key;
	json_t *value;

	json_object_foreach(parameters, key, value)
	{
		bool known = false;

		for (size_t i = 0; i < count; i++)
			known = known || strcmp(key, table[i].name) == 0;
		if (!known)
			return refuse_unknown(key, table, count, reason);
	}
	return 0;
}

int parameters_decode(
	json_t *parameters, const struct parameter *table, size_t count, void *call, char *reason)
{
	int error = check_keys(parameters, table, count, reason);

	for (size_t i = 0; !error && i < count; i++) {
		json_t *value = json_object_get(parameters, table[i].name);
		const char *allowed = NULL;

		if (value && !json_is_null(value))
			allowed = table[i].decode(value, call);
		else if (table[i].required)
			allowed = "is missing";
		if (!allowed)
			continue;
		snprintf(reason, BROKER_REASON_SIZE, "parameter \"%s\" %s", table[i].name, allowed);
		error = -EINVAL;
	}
	return error;
}

#define NETWORK_NAME_ALLOWED                                                                       \
	"must be a network name: 1 to 32 letters, digits, \"_\", \".\" or \"-\", "                 \
	"beginning with a letter or digit"

const char *parameter_text_or_empty(json_t *value)
{
	return json_is_string(value) ? json_string_value(value) : "";
}

const char *parameter_decode_network_name(json_t *value, char *ret_name)
{
	const char *name = parameter_text_or_empty(value);

	if (!network_name_is_valid(name))
		return NETWORK_NAME_ALLOWED;
	text_copy(ret_name, NETWORK_NAME_SIZE, name);
	return NULL;
}

int member_set_text(json_t *object, const char *key, const char *text)
{
	return *text ? json_object_set_new(object, key, json_string(text)) : 0;
}

json_t *text_encode(const char *text)
{
	json_t *value = json_string(text);
	cleanup_free char *ascii = NULL;

	if (value)
		return value;
	ascii = strdup(text);
	if (!ascii)
		return NULL;
	for (char *c = ascii; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_string(ascii);
}
