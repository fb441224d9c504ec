/* The keys of a network: what each may be. */
#include "broker/config-forwards.h"
#include "broker/config-parse.h"

#include "base/cleanup.h"
#include "priv/pool.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <string.h>

#define MODE_BIT(mode) (1u << (mode))

static void parse_mode(struct config_parse *parse, json_t *value)
{
	struct config_network *network = parse->network;
	const char *text = json_string_value(value);
	enum network_mode mode, built_in_mode;

	if (!text || network_mode_from_text(text, &mode) < 0)
		config_add_error(network, "mode", "%s: one of shared, host, bridged",
			config_describe_value(value).text);
	else if (config_is_built_in(network->name, &built_in_mode) && mode != built_in_mode)
		config_add_error(network, "mode",
			"\"%s\": this network is built in and always has mode %s; give yours "
			"another name",
			text, network_mode_to_text(built_in_mode));
	else
		network->settings.mode = mode;
}

static bool is_printable(const char *text)
{
	for (; *text; text++)
		if (iscntrl((unsigned char)*text))
			return false;
	return true;
}

static void parse_description(struct config_parse *parse, json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || !is_printable(text) ||
		text_copy(parse->network->description, CONFIG_DESCRIPTION_SIZE, text) < 0)
		config_add_error(parse->network, "description",
			"%s: a text of at most %d bytes without control characters",
			config_describe_value(value).text, CONFIG_DESCRIPTION_SIZE - 1);
}

static void parse_subnet(struct config_parse *parse, json_t *value)
{
	const char *text = json_string_value(value);
	struct ipv4_subnet subnet;

	if (!text || text_to_ipv4_subnet(text, &subnet) < 0) {
		config_add_error(parse->network, "subnet",
			"%s: a network address and a prefix length of 8 to 30, such as "
			"\"192.168.64.0/24\"",
			config_describe_value(value).text);
		return;
	}
	if (!ipv4_subnet_is_private(subnet)) {
		config_add_error(parse->network, "subnet",
			"\"%s\": not private; inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
			text);
		return;
	}
	parse->network->settings.subnet = subnet;
	parse->network->settings.has_subnet = true;
}

static void parse_range(struct config_parse *parse, json_t *value, enum config_range part,
	const char *name, const char *allowed)
{
	const char *text = json_string_value(value);

	if (!text || text_to_ipv4(text, &parse->range[part]) < 0)
		config_add_error(
			parse->network, name, "%s: %s", config_describe_value(value).text, allowed);
	else
		parse->has_range[part] = true;
}

static void parse_start(struct config_parse *parse, json_t *value)
{
	parse_range(parse, value, CONFIG_RANGE_START, "start",
		"the host's own IPv4 address on the network, such as \"192.168.105.1\"");
}

static void parse_end(struct config_parse *parse, json_t *value)
{
	parse_range(parse, value, CONFIG_RANGE_END, "end",
		"the last IPv4 address for VMs, such as \"192.168.105.254\"");
}

static void parse_mask(struct config_parse *parse, json_t *value)
{
	parse_range(parse, value, CONFIG_RANGE_MASK, "mask",
		"the subnet's mask, such as \"255.255.255.0\"");
}

/* fd00::/8 (RFC 4193 3.1: locally assigned), 64 bits, the others zero. */
static bool text_to_ula_prefix(const char *text, struct in6_addr *ret_prefix)
{
	static const uint8_t zero[8];
	const char *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	struct in6_addr prefix;

	if (!slash || strcmp(slash, "/64") != 0 || (size_t)(slash - text) >= sizeof(address))
		return false;
	snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
	if (inet_pton(AF_INET6, address, &prefix) != 1 || prefix.s6_addr[0] != 0xfd ||
		memcmp(prefix.s6_addr + 8, zero, sizeof(zero)) != 0)
		return false;
	*ret_prefix = prefix;
	return true;
}

static void parse_ipv6(struct config_parse *parse, json_t *value)
{
	struct network_settings *settings = &parse->network->settings;
	const char *text = json_string_value(value);

	if (json_is_boolean(value)) {
		settings->ipv6 = json_is_true(value);
	} else if (text && text_to_ula_prefix(text, &settings->ipv6_prefix)) {
		settings->ipv6 = true;
		settings->has_ipv6_prefix = true;
	} else {
		config_add_error(parse->network, "ipv6",
			"%s: true, false, or a private prefix of 64 bits, such as "
			"\"fd12:3456:789a:1::/64\"",
			config_describe_value(value).text);
	}
}

static void parse_number(struct config_network *network, const char *name, json_t *value,
	const char *what, uint32_t minimum, uint32_t maximum, uint32_t *ret_number)
{
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < minimum || number > maximum)
		config_add_error(network, name, "%s: a number of %s from %u to %u",
			config_describe_value(value).text, what, minimum, maximum);
	else
		*ret_number = (uint32_t)number;
}

static void parse_mtu(struct config_parse *parse, json_t *value)
{
	parse_number(parse->network, "mtu", value, "bytes", CONFIG_MTU_MIN, CONFIG_MTU_MAX,
		&parse->network->settings.mtu);
}

static void parse_lease_time(struct config_parse *parse, json_t *value)
{
	parse_number(parse->network, "lease_time", value, "seconds", SETTINGS_LEASE_MIN_S,
		SETTINGS_LEASE_MAX_S, &parse->network->settings.lease_s);
}

static void parse_domain(struct config_parse *parse, json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || !domain_is_valid(text) ||
		text_copy(parse->network->settings.domain, NETWORK_DOMAIN_SIZE, text) < 0)
		config_add_error(parse->network, "domain",
			"%s: a DNS domain of at most %d bytes, such as \"lab.internal\"",
			config_describe_value(value).text, NETWORK_DOMAIN_SIZE - 1);
}

static void parse_uplink(struct config_parse *parse, json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || !uplink_name_is_valid(text))
		config_add_error(parse->network, "uplink",
			"%s: the name of an interface of the host, such as \"eth0\"",
			config_describe_value(value).text);
	else
		text_copy(parse->network->settings.uplink, IFNAMSIZ, text);
}

static void parse_reservations(struct config_parse *parse, json_t *value)
{
	config_parse_reservations(parse->network, value);
}

static void parse_allow(struct config_parse *parse, json_t *value)
{
	config_parse_allow(parse->network, value);
}

static void parse_forwards(struct config_parse *parse, json_t *value)
{
	struct config_network *network = parse->network;
	struct config_forwards_mistake mistake;

	if (config_forwards_parse(value, &network->forwards, &network->forwards_count, &mistake) <
		0)
		config_add_error(network, mistake.key, "%s", mistake.text);
}

static void parse_quotas(struct config_parse *parse, json_t *value)
{
	config_parse_quotas(parse->network, value);
}

#define NOT_HOST     MODE_BIT(NETWORK_MODE_HOST)
#define NOT_BRIDGED  MODE_BIT(NETWORK_MODE_BRIDGED)
#define FLAG(member) .flag_offset = offsetof(struct config_network, member), .is_flag = true

static const struct network_key {
	const char *name;
	void (*parse)(struct config_parse *parse, json_t *value); /* unless is_flag */
	bool is_flag;
	size_t flag_offset;         /* of a bool in struct config_network */
	unsigned meaningless_modes; /* MODE_BITs: the key is a mistake there */
} network_keys[] = {
	{"mode", parse_mode},
	{"description", parse_description},
	{"subnet", parse_subnet, .meaningless_modes = NOT_BRIDGED},
	{"start", parse_start, .meaningless_modes = NOT_BRIDGED},
	{"end", parse_end, .meaningless_modes = NOT_BRIDGED},
	{"mask", parse_mask, .meaningless_modes = NOT_BRIDGED},
	{"ipv6", parse_ipv6, .meaningless_modes = NOT_BRIDGED},
	{"mtu", parse_mtu},
	{"dhcp", FLAG(settings.dhcp), .meaningless_modes = NOT_BRIDGED},
	{"dns", FLAG(settings.dns), .meaningless_modes = NOT_BRIDGED},
	{"ra", FLAG(settings.router_advertisement), .meaningless_modes = NOT_BRIDGED},
	{"lease_time", parse_lease_time, .meaningless_modes = NOT_BRIDGED},
	{"domain", parse_domain, .meaningless_modes = NOT_BRIDGED},
	{"reservations", parse_reservations, .meaningless_modes = NOT_BRIDGED},
	{"isolation", FLAG(settings.isolation), .meaningless_modes = NOT_BRIDGED},
	{"lock_mac", FLAG(settings.lock_mac), .meaningless_modes = NOT_BRIDGED},
	{"uplink", parse_uplink, .meaningless_modes = NOT_HOST},
	{"allow", parse_allow},
	{"quotas", parse_quotas},
	{"pinned", FLAG(pinned)},
	{"forwards", parse_forwards, .meaningless_modes = NOT_BRIDGED},
};
static_assert(array_length(network_keys) <= 64, "struct config_parse has a bit for each");

static size_t find_key(const char *name)
{
	size_t i = 0;

	while (i < array_length(network_keys) && strcmp(network_keys[i].name, name) != 0)
		i++;
	return i;
}

static void add_unknown_key(struct config_network *network, const char *name)
{
	char names[256];
	size_t used = 0;

	for (size_t i = 0; i < array_length(network_keys) && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
			network_keys[i].name);
	config_add_error(network, name, "unknown key; one of %s", names);
}

static void parse_flag(struct config_network *network, const struct network_key *key, json_t *value)
{
	if (json_is_boolean(value))
		*(bool *)((char *)network + key->flag_offset) = json_is_true(value);
	else
		config_add_error(
			network, key->name, "%s: true or false", config_describe_value(value).text);
}

void config_parse_key(struct config_parse *parse, const char *name, json_t *value)
{
	size_t index = find_key(name);
	const struct network_key *key = &network_keys[index];

	if (index == array_length(network_keys)) {
		add_unknown_key(parse->network, name);
		return;
	}
	if (parse->seen >> index & 1) {
		config_add_error(parse->network, name, "given twice");
		return;
	}
	parse->seen |= UINT64_C(1) << index;
	if (key->is_flag)
		parse_flag(parse->network, key, value);
	else
		key->parse(parse, value);
}

bool config_has_key(const struct config_parse *parse, const char *name)
{
	return parse->seen >> find_key(name) & 1;
}

void config_check_modes(struct config_parse *parse)
{
	enum network_mode mode = parse->network->settings.mode;

	for (size_t i = 0; i < array_length(network_keys); i++)
		if ((parse->seen >> i & 1) && (network_keys[i].meaningless_modes & MODE_BIT(mode)))
			config_add_error(parse->network, network_keys[i].name,
				"means nothing on a network of mode %s; remove it",
				network_mode_to_text(mode));
}
