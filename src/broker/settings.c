#include "broker/settings.h"

#include "base/cleanup.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static uint32_t default_mtu = SETTINGS_MTU_DEFAULT;

void network_settings_set_default_mtu(uint32_t mtu)
{
	default_mtu = mtu;
}

void network_settings_init(struct network_settings *settings, enum network_mode mode)
{
	*settings = (struct network_settings){
		.mode = mode,
		.ipv6 = true,
		.mtu = default_mtu,
		.dhcp = true,
		.dns = true,
		.router_advertisement = true,
		.lease_s = SETTINGS_LEASE_DEFAULT_S,
	};
}

/* The members that are of one kind, by kind. */
static const struct {
	const char *name;
	size_t offset;
} flags[] = {
	{"ipv6", offsetof(struct network_settings, ipv6)},
	{"dhcp", offsetof(struct network_settings, dhcp)},
	{"dns", offsetof(struct network_settings, dns)},
	{"routerAdvertisement", offsetof(struct network_settings, router_advertisement)},
	{"isolation", offsetof(struct network_settings, isolation)},
	{"lockMac", offsetof(struct network_settings, lock_mac)},
};

static const struct {
	const char *name;
	size_t offset;
} numbers[] = {
	{"gatewayOffset", offsetof(struct network_settings, gateway_offset)},
	{"lastOffset", offsetof(struct network_settings, last_offset)},
	{"mtu", offsetof(struct network_settings, mtu)},
	{"lease", offsetof(struct network_settings, lease_s)},
};

static const struct {
	const char *name;
	size_t offset, size;
} texts[] = {
	{"domain", offsetof(struct network_settings, domain), NETWORK_DOMAIN_SIZE},
	{"uplink", offsetof(struct network_settings, uplink), IFNAMSIZ},
};

json_t *network_settings_encode(const struct network_settings *settings)
{
	const char *bytes = (const char *)settings;
	json_t *object = json_pack("{s:s}", "mode", network_mode_to_text(settings->mode));
	char subnet[SUBNET_TEXT_SIZE];
	char prefix[INET6_ADDRSTRLEN];

	for (size_t i = 0; object && i < array_length(flags); i++)
		json_object_set_new(object, flags[i].name,
			json_boolean(*(const bool *)(bytes + flags[i].offset)));
	for (size_t i = 0; object && i < array_length(numbers); i++)
		json_object_set_new(object, numbers[i].name,
			json_integer(*(const uint32_t *)(const void *)(bytes + numbers[i].offset)));
	for (size_t i = 0; object && i < array_length(texts); i++)
		json_object_set_new(object, texts[i].name, json_string(bytes + texts[i].offset));
	if (object && settings->has_subnet) {
		ipv4_subnet_to_text(settings->subnet, subnet);
		json_object_set_new(object, "subnet", json_string(subnet));
	}
	if (object && settings->has_ipv6_prefix &&
		inet_ntop(AF_INET6, &settings->ipv6_prefix, prefix, sizeof(prefix)))
		json_object_set_new(object, "ipv6Prefix", json_string(prefix));
	return object;
}

static bool decode_members(const json_t *object, char *bytes)
{
	for (size_t i = 0; i < array_length(flags); i++) {
		const json_t *value = json_object_get(object, flags[i].name);

		if (!json_is_boolean(value))
			return false;
		*(bool *)(bytes + flags[i].offset) = json_is_true(value);
	}
	for (size_t i = 0; i < array_length(numbers); i++) {
		const json_t *value = json_object_get(object, numbers[i].name);

		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
			json_integer_value(value) > UINT32_MAX)
			return false;
		*(uint32_t *)(void *)(bytes + numbers[i].offset) =
			(uint32_t)json_integer_value(value);
	}
	for (size_t i = 0; i < array_length(texts); i++) {
		const char *text = json_string_value(json_object_get(object, texts[i].name));

		if (!text || text_copy(bytes + texts[i].offset, texts[i].size, text) < 0)
			return false;
	}
	return true;
}

/* What may be left out. */
static bool decode_addresses(const json_t *object, struct network_settings *settings)
{
	const char *subnet = json_string_value(json_object_get(object, "subnet"));
	const char *prefix = json_string_value(json_object_get(object, "ipv6Prefix"));

	settings->has_subnet = subnet != NULL;
	settings->has_ipv6_prefix = prefix != NULL;
	return (!subnet || text_to_ipv4_subnet(subnet, &settings->subnet) == 0) &&
	       (!prefix || inet_pton(AF_INET6, prefix, &settings->ipv6_prefix) == 1);
}

bool network_settings_decode(const json_t *object, struct network_settings *ret_settings)
{
	const char *mode = json_string_value(json_object_get(object, "mode"));
	struct network_settings settings = {0};

	if (!mode || network_mode_from_text(mode, &settings.mode) < 0 ||
		!decode_members(object, (char *)&settings) || !decode_addresses(object, &settings))
		return false;
	*ret_settings = settings;
	return true;
}

/* What the members of a record are called in the configuration, where that is another word. */
static const char *configured_name(const char *member)
{
	static const struct {
		const char *member, *key;
	} names[] = {
		{"routerAdvertisement", "ra"},
		{"lockMac", "lock_mac"},
		{"gatewayOffset", "start"},
		{"lastOffset", "end"},
		{"lease", "lease_time"},
		{"ipv6Prefix", "ipv6 prefix"},
	};

	for (size_t i = 0; i < array_length(names); i++)
		if (strcmp(names[i].member, member) == 0)
			return names[i].key;
	return member;
}

/* Both ways of saying that the gateway is the first host are one. */
static json_t *encode_plainly(const struct network_settings *settings)
{
	struct network_settings plain = *settings;

	if (plain.gateway_offset == 0)
		plain.gateway_offset = 1;
	return network_settings_encode(&plain);
}

static void add_difference(char *keys, const char *member)
{
	size_t used = strlen(keys);

	snprintf(keys + used, SETTINGS_DIFFERENCES_SIZE - used, "%s%s", used ? ", " : "",
		configured_name(member));
}

bool network_settings_compare(
	const struct network_settings *a, const struct network_settings *b, char *keys)
{
	cleanup_json json_t *left = encode_plainly(a), *right = encode_plainly(b);
	const char *member;
	json_t *value;

	*keys = '\0';
	json_object_foreach(
		left, member, value) if (!json_equal(value, json_object_get(right, member)))
		add_difference(keys, member);
	json_object_foreach(right, member, value) if (!json_object_get(left, member))
		add_difference(keys, member);
	return *keys != '\0';
}
