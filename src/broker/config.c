#include "broker/config.h"

#include "base/cleanup.h"
#include "broker/json-members.h"
#include "priv/pool.h"
#include "wire/varlink.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static const struct {
	const char *name;
	enum network_mode mode;
} built_in_networks[] = {
	{"shared", NETWORK_MODE_SHARED},
	{"host", NETWORK_MODE_HOST},
};

void config_init(struct config *config)
{
	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < array_length(built_in_networks); i++) {
		struct config_network *network = &config->networks[i];

		snprintf(network->name, sizeof(network->name), "%s", built_in_networks[i].name);
		network_settings_init(&network->settings, built_in_networks[i].mode);
	}
	config->networks_count = array_length(built_in_networks);
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

/* The first mistake of a network is the one that is told. */
__attribute__((format(printf, 3, 4))) static void add_error(
	struct config_network *network, const char *key, const char *format, ...)
{
	char text[CONFIG_ERROR_SIZE / 2];
	va_list arguments;

	if (*network->error)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	snprintf(network->error, sizeof(network->error), "%s: %s%s%s: %s", network->file,
		network->name, key ? "." : "", key ? key : "", text);
}

/* A value as it stands in the file, cut to what fits into a message. */
struct value_text {
	char text[80];
};

static struct value_text describe_value(const json_t *value)
{
	cleanup_free char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	struct value_text described;

	snprintf(described.text, sizeof(described.text), "%s", dump ? dump : "?");
	return described;
}

static bool is_built_in(const char *name, enum network_mode *ret_mode)
{
	for (size_t i = 0; i < array_length(built_in_networks); i++) {
		if (strcmp(built_in_networks[i].name, name) != 0)
			continue;
		*ret_mode = built_in_networks[i].mode;
		return true;
	}
	return false;
}

static void parse_mode(struct config_network *network, const json_t *value)
{
	const char *text = json_string_value(value);
	enum network_mode mode, built_in_mode;

	if (text && strcmp(text, "bridged") == 0) {
		add_error(network, "mode", "\"bridged\": not available yet; one of shared, host");
		return;
	}
	if (!text || network_mode_from_text(text, &mode) < 0) {
		add_error(network, "mode", "%s: one of shared, host, bridged",
			describe_value(value).text);
		return;
	}
	if (is_built_in(network->name, &built_in_mode) && mode != built_in_mode) {
		add_error(network, "mode",
			"\"%s\": this network is built in and always has mode %s; "
			"give yours another name",
			text, network_mode_to_text(built_in_mode));
		return;
	}
	network->settings.mode = mode;
}

static void parse_subnet(struct config_network *network, const json_t *value)
{
	const char *text = json_string_value(value);
	struct ipv4_subnet subnet;

	if (!text || text_to_ipv4_subnet(text, &subnet) < 0) {
		add_error(network, "subnet",
			"%s: a network address and a prefix length of 8 to 30, such as "
			"\"192.168.64.0/24\"",
			describe_value(value).text);
		return;
	}
	if (!ipv4_subnet_is_private(subnet)) {
		add_error(network, "subnet",
			"\"%s\": not private; inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
			text);
		return;
	}
	network->settings.subnet = subnet;
	network->settings.has_subnet = true;
}

static void parse_mtu(struct config_network *network, const json_t *value)
{
	json_int_t mtu = json_integer_value(value);

	if (!json_is_integer(value) || mtu < CONFIG_MTU_MIN || mtu > CONFIG_MTU_MAX)
		add_error(network, "mtu", "%s: a number of bytes from %d to %d",
			describe_value(value).text, CONFIG_MTU_MIN, CONFIG_MTU_MAX);
	else
		network->settings.mtu = (uint32_t)mtu;
}

static const struct network_key {
	const char *name;
	void (*parse)(struct config_network *network, const json_t *value);
} network_keys[] = {
	{.name = "mode", .parse = parse_mode},
	{.name = "subnet", .parse = parse_subnet},
	{.name = "mtu", .parse = parse_mtu},
};

static const struct network_key *find_key(const char *name)
{
	for (size_t i = 0; i < array_length(network_keys); i++)
		if (strcmp(network_keys[i].name, name) == 0)
			return &network_keys[i];
	return NULL;
}

static void parse_network_member(
	struct config_network *network, bool *seen, const char *name, const json_t *value)
{
	const struct network_key *key = find_key(name);

	if (!key) {
		add_error(network, name, "unknown key; one of mode, subnet, mtu");
		return;
	}
	if (seen[key - network_keys]) {
		add_error(network, name, "given twice");
		return;
	}
	seen[key - network_keys] = true;
	key->parse(network, value);
}

static void parse_network(struct config_network *network, const char *bytes, size_t size)
{
	bool seen[array_length(network_keys)] = {false};
	struct json_members members;
	struct json_member member;
	enum network_mode ignored;

	if (json_members_init(&members, bytes, size) < 0) {
		add_error(network, NULL, "an object is needed, such as {\"mode\": \"shared\"}");
		return;
	}
	while (json_members_next(&members, &member)) {
		cleanup_free char *name = json_member_name(&member);
		cleanup_json json_t *value = json_loadb(member.value, member.value_size,
			JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);

		if (name && value)
			parse_network_member(network, seen, name, value);
		else
			add_error(network, name, "keys given twice inside it");
	}
	if (!seen[0] && !is_built_in(network->name, &ignored))
		add_error(network, "mode", "missing; one of shared, host, bridged");
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
	*network = (struct config_network){.file = ""};
	network_settings_init(&network->settings, NETWORK_MODE_SHARED);
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
		add_error(network, NULL, "given twice, the second time in %s", file_name);
		return;
	}
	snprintf(network->name, sizeof(network->name), "%s", name);
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

static const struct config_network *find_overlap(
	const struct config *config, const struct config_network *network)
{
	for (const struct config_network *earlier = config->networks; earlier < network; earlier++)
		if (earlier->settings.has_subnet && !*earlier->error &&
			ipv4_subnets_overlap(earlier->settings.subnet, network->settings.subnet))
			return earlier;
	return NULL;
}

void config_check_overlaps(struct config *config)
{
	for (size_t i = 0; i < config->networks_count; i++) {
		struct config_network *network = &config->networks[i];
		const struct config_network *earlier;
		char text[SUBNET_TEXT_SIZE], earlier_text[SUBNET_TEXT_SIZE];

		if (!network->settings.has_subnet || *network->error)
			continue;
		earlier = find_overlap(config, network);
		if (!earlier)
			continue;
		ipv4_subnet_to_text(network->settings.subnet, text);
		ipv4_subnet_to_text(earlier->settings.subnet, earlier_text);
		add_error(network, "subnet", "\"%s\": overlaps %s of network \"%s\" (%s)", text,
			earlier_text, earlier->name, earlier->file);
	}
}
