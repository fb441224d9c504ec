#include "broker/config-forwards.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One forward being parsed. */
struct parse {
	size_t index;
	struct forward_spec *spec;
	struct config_forwards_mistake *mistake;
};

__attribute__((format(printf, 3, 4))) static int refuse(
	const struct parse *parse, const char *key, const char *format, ...)
{
	struct config_forwards_mistake *mistake = parse->mistake;
	va_list arguments;

	snprintf(mistake->key, sizeof(mistake->key), "forwards[%zu]%s%.24s", parse->index,
		key ? "." : "", key ? key : "");
	va_start(arguments, format);
	vsnprintf(mistake->text, sizeof(mistake->text), format, arguments);
	va_end(arguments);
	return -EINVAL;
}

static const char *get_text(const json_t *value)
{
	return json_is_string(value) ? json_string_value(value) : "";
}

static int parse_protocol(const struct parse *parse, const json_t *value)
{
	if (forward_spec_set_protocol(parse->spec, get_text(value)) < 0)
		return refuse(parse, "protocol", FORWARD_PROTOCOL_ALLOWED);
	return 0;
}

static int parse_port(const struct parse *parse, const json_t *value)
{
	json_int_t port = json_integer_value(value);

	if (!json_is_integer(value) || port < 1 || port > UINT16_MAX)
		return refuse(parse, "port", "must be a port, a number from 1 to 65535");
	parse->spec->listen.port = (uint16_t)port;
	return 0;
}

static int parse_listen(const struct parse *parse, const json_t *value)
{
	if (forward_spec_set_listen(parse->spec, get_text(value)) < 0)
		return refuse(parse, "listen", FORWARD_LISTEN_ALLOWED);
	return 0;
}

static int parse_to(const struct parse *parse, const json_t *value)
{
	if (forward_spec_set_target(parse->spec, get_text(value)) < 0)
		return refuse(parse, "to", FORWARD_TARGET_ALLOWED);
	return 0;
}

static const struct {
	const char *name;
	int (*parse)(const struct parse *parse, const json_t *value);
} keys[] = {
	{"protocol", parse_protocol},
	{"port", parse_port},
	{"listen", parse_listen},
	{"to", parse_to},
};

static int parse_member(const struct parse *parse, const char *name, const json_t *value)
{
	for (size_t i = 0; i < array_length(keys); i++)
		if (strcmp(keys[i].name, name) == 0)
			return keys[i].parse(parse, value);
	return refuse(parse, name, "unknown key; one of protocol, port, listen, to");
}

static int parse_forward(const struct parse *parse, json_t *value)
{
	bool has_port = json_object_get(value, "port"),
	     has_listen = json_object_get(value, "listen");
	const char *name;
	json_t *member;
	int error = 0;

	if (!json_is_object(value))
		return refuse(parse, NULL,
			"an object is needed, such as {\"port\": 8080, \"to\": \"web:80\"}");
	json_object_foreach(value, name, member)
	{
		error = parse_member(parse, name, member);
		if (error)
			return error;
	}
	if (has_port == has_listen)
		return refuse(parse, NULL, "one of port and listen is needed, and only one");
	if (!json_object_get(value, "to"))
		return refuse(parse, "to", "missing; " FORWARD_TARGET_ALLOWED);
	if (forward_spec_settle(parse->spec) < 0)
		return refuse(parse, "to", "is of another family (IPv4, IPv6) than listen");
	return 0;
}

static int check_free(const struct parse *parse, const struct forward_spec *specs)
{
	const struct forward_spec *spec = parse->spec;

	for (size_t i = 0; i < parse->index; i++)
		if (specs[i].protocol == spec->protocol &&
			endpoints_overlap(&specs[i].listen, &spec->listen))
			return refuse(parse, NULL, "%s port %u is that of forwards[%zu] already",
				forward_protocol_to_text(spec->protocol), spec->listen.port, i);
	return 0;
}

int config_forwards_parse(const json_t *value, struct forward_spec **ret_specs, size_t *ret_count,
	struct config_forwards_mistake *ret_mistake)
{
	size_t count = json_array_size(value);
	cleanup_free struct forward_spec *specs = calloc(count + 1, sizeof(*specs));
	struct parse parse = {.mistake = ret_mistake};

	snprintf(ret_mistake->key, sizeof(ret_mistake->key), "forwards");
	snprintf(ret_mistake->text, sizeof(ret_mistake->text),
		"a list of at most %d forwards is needed, such as [{\"port\": 8080, \"to\": "
		"\"web:80\"}]",
		CONFIG_FORWARDS_MAX);
	if (!specs || !json_is_array(value) || count > CONFIG_FORWARDS_MAX)
		return -EINVAL;
	for (parse.index = 0; parse.index < count; parse.index++) {
		int error;

		parse.spec = &specs[parse.index];
		forward_spec_init(parse.spec);
		error = parse_forward(&parse, json_array_get(value, parse.index));
		if (!error)
			error = check_free(&parse, specs);
		if (error)
			return error;
	}
	*ret_specs = take_ptr(specs);
	*ret_count = count;
	return 0;
}
