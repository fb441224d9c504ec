#include "broker/settings.h"

#include "base/cleanup.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

void network_settings_init(struct network_settings *settings, enum network_mode mode)
{
	*settings = (struct network_settings){
		.mode = mode,
		.ipv6 = true,
		.mtu = SETTINGS_MTU_DEFAULT,
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
