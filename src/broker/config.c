#include "broker/config-parse.h"

#include "base/cleanup.h"
#include "broker/json-members.h"
#include "wire/varlink.h"

#include <stdarg.h>
#include <string.h>

static const struct {
	const char *name;
	enum network_mode mode;
} built_in_networks[] = {
	{"shared", NETWORK_MODE_SHARED},
	{"host", NETWORK_MODE_HOST},
};

/* What a network is before any of its keys is read. */
static void init_network(struct config_network *network, const char *name, enum network_mode mode)
{
	*network = (struct config_network){
		.quotas = {CONFIG_QUOTA_UNSET, CONFIG_QUOTA_UNSET, CONFIG_QUOTA_UNSET},
	};
	snprintf(network->name, sizeof(network->name), "%s", name);
	network_settings_init(&network->settings, mode);
}

void config_init(struct config *config)
{
	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < array_length(built_in_networks); i++)
		init_network(
			&config->networks[i], built_in_networks[i].name, built_in_networks[i].mode);
	config->networks_count = array_length(built_in_networks);
}

static void free_network(struct config_network *network)
{
	free(network->reservations);
	free(network->forwards);
	free(network->access.users.entries);
	free(network->access.groups.entries);
	for (size_t i = 0; i < network->further_errors_count; i++)
		free(network->further_errors[i]);
}

void config_done(struct config *config)
{
	for (size_t i = 0; i < config->networks_count; i++)
		free_network(&config->networks[i]);
	config->networks_count = 0;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	config_done(config);
	free(config);
}

void config_visit_mistakes(const struct config *config,
	void (*visit)(void *context, const char *network, const char *mistake), void *context)
{
	for (size_t i = 0; i < config->broken_count; i++)
		visit(context, NULL, config->broken[i]);
	for (size_t i = 0; i < config->networks_count; i++) {
		const struct config_network *network = &config->networks[i];

		if (*network->error)
			visit(context, network->name, network->error);
		for (size_t j = 0; j < network->further_errors_count; j++)
			visit(context, network->name, network->further_errors[j]);
	}
}

static struct config_network *find_network(struct config *config, const char *name)
{
	for (size_t i = 0; i < config->networks_count; i++)
		if (strcmp(config->networks[i].name, name) == 0)
			return &config->networks[i];
	return NULL;
}

const struct config_network *config_find(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->networks_count; i++)
		if (strcmp(config->networks[i].name, name) == 0)
			return &config->networks[i];
	return NULL;
}

__attribute__((format(printf, 2, 3))) static void add_broken(
	struct config *config, const char *format, ...)
{
	va_list arguments;

	if (config->broken_count == CONFIG_BROKEN_MAX)
		return;
	va_start(arguments, format);
	vsnprintf(config->broken[config->broken_count], CONFIG_ERROR_SIZE, format, arguments);
	va_end(arguments);
	config->broken_count++;
}

void config_add_error(struct config_network *network, const char *path, const char *format, ...)
{
	char text[CONFIG_ERROR_SIZE];
	char *further;
	va_list arguments;
	int used = snprintf(text, sizeof(text), "%s: %s%s%.*s: ", network->file, network->name,
		path ? "." : "", CONFIG_PATH_SIZE, path ? path : "");

	va_start(arguments, format);
	vsnprintf(text + used, sizeof(text) - (size_t)used, format, arguments);
	va_end(arguments);
	if (!*network->error) {
		memcpy(network->error, text, sizeof(text));
		return;
	}
	if (network->further_errors_count == CONFIG_ERRORS_MAX - 1)
		return;
	further = strdup(text);
	if (further)
		network->further_errors[network->further_errors_count++] = further;
}

struct config_value_text config_describe_value(const json_t *value)
{
	cleanup_free char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	struct config_value_text described;

	snprintf(described.text, sizeof(described.text), "%s", dump ? dump : "?");
	return described;
}

bool config_is_built_in(const char *name, enum network_mode *ret_mode)
{
	for (size_t i = 0; i < array_length(built_in_networks); i++) {
		if (strcmp(built_in_networks[i].name, name) != 0)
			continue;
		*ret_mode = built_in_networks[i].mode;
		return true;
	}
	return false;
}

static void parse_network(struct config_network *network, const char *bytes, size_t size)
{
	struct config_parse parse = {.network = network};
	struct json_members members;
	struct json_member member;

	if (json_members_init(&members, bytes, size) < 0) {
		config_add_error(
			network, NULL, "an object is needed, such as {\"mode\": \"shared\"}");
		return;
	}
	while (json_members_next(&members, &member)) {
		cleanup_free char *name = json_member_name(&member);
		cleanup_json json_t *value = json_loadb(member.value, member.value_size,
			JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);

		if (name && value)
			config_parse_key(&parse, name, value);
		else
			config_add_error(network, name, "keys given twice inside it");
	}
	config_check_network(&parse);
}

/* Where the network goes: over a built-in one, or behind the others. NULL when there is no room. */
static struct config_network *place_network(struct config *config, const char *name)
{
	struct config_network *network = find_network(config, name);

	if (network)
		return network;
	if (config->networks_count == CONFIG_NETWORKS_MAX)
		return NULL;
	network = &config->networks[config->networks_count++];
	init_network(network, name, NETWORK_MODE_SHARED);
	return network;
}

static void add_network(struct config *config, const char *file_name, const char *name,
	const struct json_member *member)
{
	struct config_network *network;

	if (!network_name_is_valid(name)) {
		add_broken(config,
			"%s: \"%.40s\": no name for a network; letters, digits, '.', '_' and '-', "
			"at most 32, the first a letter or digit",
			file_name, name);
		return;
	}
	network = place_network(config, name);
	if (!network) {
		add_broken(config, "%s: %s: more than %d networks", file_name, name,
			CONFIG_NETWORKS_MAX);
		return;
	}
	if (*network->file) {
		config_add_error(network, NULL, "given twice, the second time in %s", file_name);
		return;
	}
	snprintf(network->file, sizeof(network->file), "%s", file_name);
	parse_network(network, member->value, member->value_size);
}

void config_parse(struct config *config, const char *file_name, const char *bytes, size_t size)
{
	json_error_t error;
	cleanup_json json_t *whole = json_loadb(bytes, size, JSON_DECODE_ANY, &error);
	struct json_members members;
	struct json_member member;

	if (!whole) {
		add_broken(config, "%s:%d:%d: %s", file_name, error.line, error.column, error.text);
		return;
	}
	if (json_members_init(&members, bytes, size) < 0) {
		add_broken(config,
			"%s:1:1: an object of networks is needed, such as {\"default\": "
			"{\"mode\": \"shared\"}}",
			file_name);
		return;
	}
	while (json_members_next(&members, &member)) {
		cleanup_free char *name = json_member_name(&member);

		if (name)
			add_network(config, file_name, name, &member);
	}
}
