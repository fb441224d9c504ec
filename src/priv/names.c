#include "priv/names.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TAG_VERSION   "vmnet/1/"
#define TAG_FIELDS    4 /* INSTANCE/KIND/MODE or PORT/NETWORK */
#define PORT_PLAIN    "-"
#define PORT_ISOLATED "isolated"
#define PORT_NAMED    "named"
#define PORT_LOCKED   "lock"
#define UID_TEXT_SIZE 11
#define PORT_TEXT_SIZE                                                                             \
	(sizeof(PORT_ISOLATED) + sizeof(PORT_NAMED) + UID_TEXT_SIZE + sizeof(PORT_LOCKED) +        \
		MAC_TEXT_SIZE + INET_ADDRSTRLEN)
#define DOMAIN_END ".vmnet"
#define FNV_BASIS  2166136261u
#define FNV_PRIME  16777619u

static const char *const mode_texts[] = {
	[NETWORK_MODE_SHARED] = "shared",
	[NETWORK_MODE_HOST] = "host",
	[NETWORK_MODE_BRIDGED] = "bridged",
};
static_assert(array_length(mode_texts) == NETWORK_MODE_COUNT, "every mode has a text");

static const char *const kind_texts[] = {
	[LINK_KIND_BRIDGE] = "bridge",
	[LINK_KIND_TAP] = "tap",
	[LINK_KIND_MACVTAP] = "macvtap",
};
static_assert(array_length(kind_texts) == LINK_KIND_COUNT, "every kind has a text");

static_assert(
	sizeof(TAG_VERSION "01234567/tap//") + PORT_TEXT_SIZE + NETWORK_NAME_SIZE <= LINK_TAG_SIZE,
	"every tag fits");
static_assert(sizeof("bridged,") + IFNAMSIZ <= PORT_TEXT_SIZE, "a mode with an uplink fits");
static_assert(sizeof("vmnet-") + NETWORK_NAME_SIZE <= LINK_ALTNAME_SIZE, "every altname fits");
static_assert(
	NETWORK_NAME_SIZE + sizeof(DOMAIN_END) - 1 <= NETWORK_DOMAIN_SIZE, "every domain fits");

const char *network_mode_to_text(enum network_mode mode)
{
	return mode_texts[mode];
}

int network_mode_from_text(const char *text, enum network_mode *ret_mode)
{
	for (size_t i = 0; i < array_length(mode_texts); i++) {
		if (strcmp(text, mode_texts[i]) == 0) {
			*ret_mode = (enum network_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

static void port_to_text(const struct link_port *port, char text[PORT_TEXT_SIZE])
{
	char named[sizeof(PORT_NAMED) + UID_TEXT_SIZE + 1] = "";
	char locked[sizeof(PORT_LOCKED) + MAC_TEXT_SIZE + INET_ADDRSTRLEN + 1] = "";
	char words[PORT_TEXT_SIZE + 1];
	char mac[MAC_TEXT_SIZE];
	char address[INET_ADDRSTRLEN];

	if (port->named)
		snprintf(named, sizeof(named), "," PORT_NAMED ",%u", port->owner);
	if (port->locked) {
		mac_to_text(port->mac, mac);
		inet_ntop(AF_INET, &port->address, address, sizeof(address));
		snprintf(locked, sizeof(locked), "," PORT_LOCKED ",%s,%s", mac, address);
	}
	snprintf(words, sizeof(words), "%s%s%s", port->isolated ? "," PORT_ISOLATED : "", named,
		locked);
	snprintf(text, PORT_TEXT_SIZE, "%s", *words ? words + 1 : PORT_PLAIN);
}

static void bridge_to_text(const struct link_tag *tag, char text[PORT_TEXT_SIZE])
{
	snprintf(text, PORT_TEXT_SIZE, "%s%s%s", mode_texts[tag->mode], *tag->uplink ? "," : "",
		tag->uplink);
}

void link_tag_to_text(const struct link_tag *tag, char *text)
{
	char detail[PORT_TEXT_SIZE];

	if (tag->kind == LINK_KIND_BRIDGE)
		bridge_to_text(tag, detail);
	else
		port_to_text(&tag->port, detail);
	snprintf(text, LINK_TAG_SIZE, TAG_VERSION "%08x/%s/%s/%s", tag->instance,
		kind_texts[tag->kind], detail, tag->network);
}

bool uplink_name_is_valid(const char *name)
{
	size_t length =
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@+-");

	return length > 0 && length < IFNAMSIZ && name[length] == '\0' && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

/* Exactly eight lower-case digits: two spellings of one instance would be two owners of a link. */
static int instance_from_text(const char *text, uint32_t *ret_instance)
{
	uint32_t instance = 0;

	if (strlen(text) != 8)
		return -EINVAL;
	for (; *text; text++) {
		const char *digits = "0123456789abcdef";
		const char *digit = strchr(digits, *text);

		if (!digit)
			return -EINVAL;
		instance = instance << 4 | (uint32_t)(digit - digits);
	}
	*ret_instance = instance;
	return 0;
}

static int kind_from_text(const char *text, enum link_kind *ret_kind)
{
	for (size_t i = 0; i < array_length(kind_texts); i++) {
		if (strcmp(text, kind_texts[i]) == 0) {
			*ret_kind = (enum link_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Cuts copy into its fields; the last one takes the rest. */
static int split_fields(char *copy, char *fields[TAG_FIELDS])
{
	for (size_t i = 0; i < TAG_FIELDS; i++) {
		fields[i] = i + 1 < TAG_FIELDS ? strsep(&copy, "/") : copy;
		if (!fields[i])
			return -EINVAL;
	}
	return 0;
}

static int lock_from_text(char *rest, struct link_port *port)
{
	const char *mac = strsep(&rest, ",");

	if (!mac || !rest || text_to_mac(mac, &port->mac) < 0 ||
		text_to_ipv4(rest, &port->address) < 0)
		return -EINVAL;
	port->locked = true;
	return 0;
}

static int owner_from_text(const char *text, struct link_port *port)
{
	port->named = true;
	return text ? text_to_uint32(text, 0, LINK_OWNER_MAX, &port->owner) : -EINVAL;
}

/* In any order and number: is_spelt_so() looks at that. */
static int port_from_text(char *text, struct link_port *port)
{
	const char *word;

	if (strcmp(text, PORT_PLAIN) == 0)
		return 0;
	while ((word = strsep(&text, ","))) {
		if (strcmp(word, PORT_LOCKED) == 0)
			return lock_from_text(text, port);
		if (strcmp(word, PORT_ISOLATED) == 0)
			port->isolated = true;
		else if (strcmp(word, PORT_NAMED) != 0 ||
			 owner_from_text(strsep(&text, ","), port) < 0)
			return -EINVAL;
	}
	return 0;
}

static int bridge_from_text(char *text, struct link_tag *tag)
{
	const char *mode = strsep(&text, ",");

	if (network_mode_from_text(mode, &tag->mode) < 0)
		return -EINVAL;
	if (!text)
		return 0;
	return uplink_name_is_valid(text) ? text_copy(tag->uplink, sizeof(tag->uplink), text)
					  : -EINVAL;
}

/* A tag has one spelling: two of one MAC would be two ports in the eyes of whoever compares. */
static bool is_spelt_so(const struct link_tag *tag, const char *text)
{
	char spelt[LINK_TAG_SIZE];

	link_tag_to_text(tag, spelt);
	return strcmp(spelt, text) == 0;
}

int link_tag_from_text(const char *text, struct link_tag *ret_tag)
{
	char copy[LINK_TAG_SIZE];
	char *fields[TAG_FIELDS];
	struct link_tag tag = {0};

	if (strncmp(text, TAG_VERSION, strlen(TAG_VERSION)) != 0 ||
		text_copy(copy, sizeof(copy), text + strlen(TAG_VERSION)) < 0 ||
		split_fields(copy, fields) < 0)
		return -EINVAL;
	if (instance_from_text(fields[0], &tag.instance) < 0 ||
		kind_from_text(fields[1], &tag.kind) < 0 || !network_name_is_valid(fields[3]))
		return -EINVAL;
	if (tag.kind == LINK_KIND_BRIDGE ? bridge_from_text(fields[2], &tag) < 0
					 : port_from_text(fields[2], &tag.port) < 0)
		return -EINVAL;
	/* A valid name always fits. */
	(void)text_copy(tag.network, sizeof(tag.network), fields[3]);
	if (!is_spelt_so(&tag, text))
		return -EINVAL;
	*ret_tag = tag;
	return 0;
}

/* FNV-1a (draft-eastlake-fnv): names differ in few bits, its results in many. */
static uint32_t hash_bytes(uint32_t hash, const void *bytes, size_t size)
{
	const uint8_t *byte = bytes;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ byte[i]) * FNV_PRIME;
	return hash;
}

static uint32_t hash_network(uint32_t instance, const char *network)
{
	const uint8_t digits[] = {(uint8_t)(instance >> 24), (uint8_t)(instance >> 16),
		(uint8_t)(instance >> 8), (uint8_t)instance};

	return hash_bytes(hash_bytes(FNV_BASIS, digits, sizeof(digits)), network, strlen(network));
}

void bridge_interface_name(uint32_t instance, const char *network, char name[IFNAMSIZ])
{
	snprintf(name, IFNAMSIZ, "vmbr%08x", hash_network(instance, network));
}

void bridge_altname(const char *network, char altname[LINK_ALTNAME_SIZE])
{
	snprintf(altname, LINK_ALTNAME_SIZE, "vmnet-%s", network);
}

void network_ipv6_prefix(
	uint32_t instance, const char *network, uint32_t attempt, uint8_t prefix[IPV6_PREFIX_SIZE])
{
	uint32_t site = hash_network(instance, "/");
	uint32_t hash = hash_network(instance, network);
	uint32_t subnet = (hash >> 16 ^ hash) + attempt;

	prefix[0] = 0xfd;
	prefix[1] = (uint8_t)(site >> 24);
	prefix[2] = (uint8_t)(site >> 16);
	prefix[3] = (uint8_t)(site >> 8);
	prefix[4] = (uint8_t)site;
	/* Another name that no network has: 8 bits more. */
	prefix[5] = (uint8_t)hash_network(instance, "//");
	prefix[6] = (uint8_t)(subnet >> 8);
	prefix[7] = (uint8_t)subnet;
}

bool ipv6_prefix_is_local(const uint8_t prefix[IPV6_PREFIX_SIZE])
{
	return prefix[0] == 0xfd;
}

struct in6_addr ipv6_prefix_gateway(const uint8_t prefix[IPV6_PREFIX_SIZE])
{
	struct in6_addr gateway = {.s6_addr[15] = 1};

	memcpy(gateway.s6_addr, prefix, IPV6_PREFIX_SIZE);
	return gateway;
}

static struct mac mac_from_number(uint8_t kind, uint32_t number)
{
	return (struct mac){.bytes = {0xfe, kind, (uint8_t)(number >> 24), (uint8_t)(number >> 16),
				    (uint8_t)(number >> 8), (uint8_t)number}};
}

struct mac bridge_mac(uint32_t instance, const char *network)
{
	return mac_from_number(0x77, hash_network(instance, network));
}

void tap_interface_name(uint32_t number, char name[IFNAMSIZ])
{
	snprintf(name, IFNAMSIZ, "vmtap%08x", number);
}

void tap_altname(const char *network, uint32_t number, char altname[LINK_ALTNAME_SIZE])
{
	snprintf(altname, LINK_ALTNAME_SIZE, "vmnet-%s-%08x", network, number);
}

struct mac tap_mac(uint32_t number)
{
	return mac_from_number(0x76, number);
}

bool mac_is_reserved(struct mac mac)
{
	return mac.bytes[0] == 0xfe && (mac.bytes[1] == 0x76 || mac.bytes[1] == 0x77);
}

void nat_table_name(uint32_t instance, char name[NAT_TABLE_SIZE])
{
	snprintf(name, NAT_TABLE_SIZE, "vmnet_%08x", instance);
}

void guard_table_name(uint32_t instance, char name[GUARD_TABLE_SIZE])
{
	snprintf(name, GUARD_TABLE_SIZE, "vmnet_guard_%08x", instance);
}

void forwards_table_name(uint32_t instance, char name[FORWARDS_TABLE_SIZE])
{
	snprintf(name, FORWARDS_TABLE_SIZE, "vmnet_forwards_%08x", instance);
}

static const char *const reserved_hostnames[] = {
	"_gateway", "gateway", "host", "isatap", "localhost", "wpad"};

const char *hostname_get_reserved(size_t index)
{
	return index < array_length(reserved_hostnames) ? reserved_hostnames[index] : NULL;
}

bool hostname_is_reserved(const char *hostname)
{
	for (size_t i = 0; i < array_length(reserved_hostnames); i++)
		if (strcasecmp(reserved_hostnames[i], hostname) == 0)
			return true;
	return false;
}

void network_domain(const char *network, char domain[NETWORK_DOMAIN_SIZE])
{
	size_t length = strnlen(network, NETWORK_NAME_SIZE - 1);

	for (size_t i = 0; i < length; i++)
		domain[i] = isalnum((unsigned char)network[i])
				    ? (char)tolower((unsigned char)network[i])
				    : '-';
	while (length > 0 && domain[length - 1] == '-')
		length--;
	memcpy(domain + length, DOMAIN_END, sizeof(DOMAIN_END));
}
