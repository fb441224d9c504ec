/* The keys of a network that have lists and objects as values. */
#include "broker/config-parse.h"

#include "base/cleanup.h"
#include "priv/names.h"
#include "wire/varlink.h"

#include <ctype.h>
#include <string.h>

/* Where in a network a mistake is: "reservations[3].mac". */
struct path {
	char text[CONFIG_PATH_SIZE];
};

__attribute__((format(printf, 1, 2))) static struct path make_path(const char *format, ...)
{
	struct path path;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path.text, sizeof(path.text), format, arguments);
	va_end(arguments);
	return path;
}

/* A reservation while it is parsed. */
struct entry {
	struct config_network *network;
	size_t index;
	struct config_reservation reservation;
	bool has_mac, has_interface_id, has_name;
	bool is_wrong;
};

__attribute__((format(printf, 3, 4))) static void add_entry_error(
	struct entry *entry, const char *key, const char *format, ...)
{
	char text[CONFIG_ERROR_SIZE / 2];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	entry->is_wrong = true;
	config_add_error(entry->network,
		make_path("reservations[%zu]%s%.30s", entry->index, key ? "." : "", key ? key : "")
			.text,
		"%s", text);
}

static void parse_entry_mac(struct entry *entry, json_t *value)
{
	const char *text = json_string_value(value);

	entry->has_mac = true;
	if (!text || text_to_mac(text, &entry->reservation.mac) < 0 ||
		!mac_is_unicast(entry->reservation.mac) || mac_is_reserved(entry->reservation.mac))
		add_entry_error(entry, "mac",
			"%s: a VM's MAC, such as \"52:54:00:12:34:56\"; no multicast one, and none "
			"of the broker's own (fe:76 and fe:77)",
			config_describe_value(value).text);
}

static void parse_entry_interface_id(struct entry *entry, json_t *value)
{
	const char *text = json_string_value(value);

	entry->has_interface_id = true;
	entry->reservation.by_interface_id = true;
	if (!text || text_to_uuid(text, &entry->reservation.interface_id) < 0)
		add_entry_error(entry, "interface_id",
			"%s: a UUID, such as \"2C2E4A1C-1F3B-4B3E-9D5E-0123456789AB\"",
			config_describe_value(value).text);
}

static void parse_entry_address(struct entry *entry, json_t *value)
{
	const char *text = json_string_value(value);

	entry->reservation.has_address = true;
	if (!text || text_to_ipv4(text, &entry->reservation.address) < 0)
		add_entry_error(entry, "address", "%s: an IPv4 address, such as \"192.168.64.10\"",
			config_describe_value(value).text);
}

static void parse_entry_name(struct entry *entry, json_t *value)
{
	const char *text = json_string_value(value);

	entry->has_name = true;
	if (!text || !hostname_is_valid(text) || hostname_is_reserved(text))
		add_entry_error(entry, "name",
			"%s: a DNS label of letters, digits and inner hyphens, and none that is "
			"the "
			"host's or trusted anywhere (host, gateway, localhost, wpad, isatap)",
			config_describe_value(value).text);
	else
		text_copy(entry->reservation.name, sizeof(entry->reservation.name), text);
}

static const struct {
	const char *name;
	void (*parse)(struct entry *entry, json_t *value);
} entry_keys[] = {
	{"mac", parse_entry_mac},
	{"interface_id", parse_entry_interface_id},
	{"address", parse_entry_address},
	{"name", parse_entry_name},
};

static void parse_entry_key(struct entry *entry, const char *name, json_t *value)
{
	for (size_t i = 0; i < array_length(entry_keys); i++) {
		if (strcmp(entry_keys[i].name, name) != 0)
			continue;
		entry_keys[i].parse(entry, value);
		return;
	}
	add_entry_error(entry, name, "unknown key; one of mac, interface_id, address, name");
}

static bool ids_are_equal(const struct config_reservation *a, const struct config_reservation *b)
{
	if (a->by_interface_id != b->by_interface_id)
		return false;
	return a->by_interface_id ? memcmp(&a->interface_id, &b->interface_id, UUID_SIZE) == 0
				  : memcmp(&a->mac, &b->mac, MAC_SIZE) == 0;
}

static void check_entry_is_unique(struct entry *entry)
{
	const struct config_reservation *reservation = &entry->reservation;

	for (size_t i = 0; i < entry->network->reservations_count; i++) {
		const struct config_reservation *other = &entry->network->reservations[i];

		if (ids_are_equal(reservation, other))
			add_entry_error(entry,
				reservation->by_interface_id ? "interface_id" : "mac",
				"is reserved for by an earlier entry too; make them one");
		if (reservation->has_address && other->has_address &&
			reservation->address.s_addr == other->address.s_addr)
			add_entry_error(entry, "address", "is an earlier entry's; choose another");
		if (*reservation->name && strcasecmp(reservation->name, other->name) == 0)
			add_entry_error(entry, "name",
				"\"%s\": is an earlier entry's; choose another", reservation->name);
	}
}

static void parse_entry(struct entry *entry, json_t *value)
{
	const char *name;
	json_t *member;

	if (!json_is_object(value)) {
		add_entry_error(entry, NULL,
			"an object is needed, such as {\"mac\": \"52:54:00:12:34:56\", "
			"\"address\": \"192.168.64.10\"}");
		return;
	}
	json_object_foreach(value, name, member) parse_entry_key(entry, name, member);
	if (entry->has_mac == entry->has_interface_id)
		add_entry_error(entry, NULL, "one of mac and interface_id is needed, and not both");
	if (!entry->reservation.has_address && !entry->has_name)
		add_entry_error(entry, NULL, "address, name or both are needed");
	if (!entry->is_wrong)
		check_entry_is_unique(entry);
}

void config_parse_reservations(struct config_network *network, json_t *value)
{
	size_t count = json_array_size(value);

	if (!json_is_array(value) || count > CONFIG_RESERVATIONS_MAX) {
		config_add_error(network, "reservations", "a list of at most %d objects is needed",
			CONFIG_RESERVATIONS_MAX);
		return;
	}
	network->reservations = calloc(count + 1, sizeof(*network->reservations));
	if (!network->reservations) {
		config_add_error(network, "reservations", "memory is out");
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct entry entry = {.network = network, .index = i};

		parse_entry(&entry, json_array_get(value, i));
		if (!entry.is_wrong)
			network->reservations[network->reservations_count++] = entry.reservation;
	}
}

/* What useradd(8) makes and what directories have beside it: no separators of passwd(5), and not
 * all digits, which would be a number. */
static bool principal_name_is_valid(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length >= CONFIG_PRINCIPAL_SIZE || strspn(name, "0123456789") == length)
		return false;
	for (; *name; name++)
		if (iscntrl((unsigned char)*name) || strchr(":,/ ", *name))
			return false;
	return true;
}

static bool parse_principal(json_t *value, struct config_principal *principal)
{
	const char *text = json_string_value(value);
	json_int_t number = json_integer_value(value);

	if (text && principal_name_is_valid(text)) {
		snprintf(principal->name, sizeof(principal->name), "%s", text);
		return true;
	}
	/* The last one means "none" (chown(2)). */
	if (!json_is_integer(value) || number < 0 || number >= UINT32_MAX)
		return false;
	principal->id = (uint32_t)number;
	principal->is_known = true;
	return true;
}

static void parse_principals(struct config_network *network, const char *key, json_t *value,
	struct config_principals *principals)
{
	size_t count = json_array_size(value);

	if (!json_is_array(value) || count > CONFIG_PRINCIPALS_MAX) {
		config_add_error(network, make_path("allow.%s", key).text,
			"a list of at most %d names and numbers is needed", CONFIG_PRINCIPALS_MAX);
		return;
	}
	principals->entries = calloc(count + 1, sizeof(*principals->entries));
	if (!principals->entries) {
		config_add_error(network, make_path("allow.%s", key).text, "memory is out");
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (parse_principal(json_array_get(value, i), &principals->entries[i]))
			principals->count++;
		else
			config_add_error(network, make_path("allow.%s[%zu]", key, i).text,
				"%s: a name, or a number without quotes",
				config_describe_value(json_array_get(value, i)).text);
}

void config_parse_allow(struct config_network *network, json_t *value)
{
	struct config_access *access = &network->access;
	const char *key;
	json_t *member;

	access->is_given = true;
	if (json_object_size(value) == 0)
		config_add_error(network, "allow",
			"%s: an object with lists is needed, such as {\"users\": [\"alice\"], "
			"\"groups\": [\"kvm\"]}",
			config_describe_value(value).text);
	json_object_foreach(value, key, member)
	{
		if (strcmp(key, "users") == 0)
			parse_principals(network, key, member, &access->users);
		else if (strcmp(key, "groups") == 0)
			parse_principals(network, key, member, &access->groups);
		else
			config_add_error(network, make_path("allow.%.30s", key).text,
				"unknown key; one of users, groups");
	}
}

static const struct {
	const char *name;
	size_t offset;
} quota_keys[] = {
	{"interfaces", offsetof(struct config_quotas, interfaces)},
	{"queues", offsetof(struct config_quotas, queues)},
	{"forwards", offsetof(struct config_quotas, forwards)},
};

static void parse_quota(struct config_network *network, const char *key, json_t *value)
{
	json_int_t number = json_integer_value(value);
	size_t i = 0;

	while (i < array_length(quota_keys) && strcmp(quota_keys[i].name, key) != 0)
		i++;
	if (i == array_length(quota_keys))
		config_add_error(network, make_path("quotas.%.30s", key).text,
			"unknown key; one of interfaces, queues, forwards");
	else if (!json_is_integer(value) || number < 0 || number > CONFIG_QUOTA_MAX)
		config_add_error(network, make_path("quotas.%s", key).text,
			"%s: a number from 0 to %d", config_describe_value(value).text,
			CONFIG_QUOTA_MAX);
	else
		*(uint32_t *)(void *)((char *)&network->quotas + quota_keys[i].offset) =
			(uint32_t)number;
}

void config_parse_quotas(struct config_network *network, json_t *value)
{
	const char *key;
	json_t *member;

	if (!json_is_object(value))
		config_add_error(network, "quotas",
			"%s: an object is needed, such as {\"interfaces\": 16}",
			config_describe_value(value).text);
	json_object_foreach(value, key, member) parse_quota(network, key, member);
}
