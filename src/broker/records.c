#include "broker/records.h"

#include "broker/durable.h"
#include "broker/helper-counters.h"
#include "priv/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define INTERFACE_DIGITS 8

struct records {
	int state;
	int state_networks;
	int runtime_networks;
	int runtime_interfaces;
};

void records_close(struct records *records)
{
	if (!records)
		return;
	fd_close(records->state);
	fd_close(records->state_networks);
	fd_close(records->runtime_networks);
	fd_close(records->runtime_interfaces);
	free(records);
}
DEFINE_CLEANUP(struct records, records_close)

int records_open(
	const char *state_directory, const char *runtime_directory, struct records **ret_records)
{
	cleanup_with(records_close) struct records *records = malloc(sizeof(*records));
	int error;

	if (!records)
		return -ENOMEM;
	*records = (struct records){-1, -1, -1, -1};
	records->state = open(state_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	error = records->state < 0 ? -errno : 0;
	if (!error)
		error = durable_open_below(state_directory, "networks", &records->state_networks);
	if (!error)
		error = durable_open_below(
			runtime_directory, "networks", &records->runtime_networks);
	if (!error)
		error = durable_open_below(
			runtime_directory, "interfaces", &records->runtime_interfaces);
	if (error)
		return error;
	*ret_records = take_ptr(records);
	return 0;
}

/* File names: network names are safe in paths (network_name_is_valid()). */
struct file_name {
	char text[DURABLE_NAME_SIZE];
};

static struct file_name network_file(const char *network, const char *suffix)
{
	struct file_name name;

	snprintf(name.text, sizeof(name.text), "%.*s%s", NETWORK_NAME_SIZE - 1, network, suffix);
	return name;
}

static struct file_name interface_file(uint32_t number)
{
	struct file_name name;

	snprintf(name.text, sizeof(name.text), "%0*x.json", INTERFACE_DIGITS, number);
	return name;
}

/* Readers of one member each; false when it is missing or wrong. */
static bool get_subnet(const json_t *object, const char *key, struct ipv4_subnet *ret_subnet)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && text_to_ipv4_subnet(text, ret_subnet) == 0;
}

static bool get_address(const json_t *object, const char *key, struct in_addr *ret_address)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && text_to_ipv4(text, ret_address) == 0;
}

static bool get_mac(const json_t *object, const char *key, struct mac *ret_mac)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && text_to_mac(text, ret_mac) == 0;
}

static bool get_uint32(const json_t *object, const char *key, uint32_t *ret_value)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		json_integer_value(value) > UINT32_MAX)
		return false;
	*ret_value = (uint32_t)json_integer_value(value);
	return true;
}

static bool get_text(const json_t *object, const char *key, char *text, size_t size)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value && text_copy(text, size, value) == 0;
}

/* Writers of one member each. */
static json_t *make_subnet(struct ipv4_subnet subnet)
{
	char text[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(subnet, text);
	return json_string(text);
}

static json_t *make_mac(struct mac mac)
{
	char text[MAC_TEXT_SIZE];

	mac_to_text(mac, text);
	return json_string(text);
}

static json_t *make_uuid(struct uuid uuid)
{
	char text[UUID_TEXT_SIZE];

	uuid_to_text(uuid, text);
	return json_string(text);
}

static json_t *make_address(struct in_addr address)
{
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &address, text, sizeof(text));
	return json_string(text);
}

/* -EBADMSG, with the file out of the way of the next start. */
static int set_aside(int directory, const char *name)
{
	durable_set_aside(directory, name);
	return -EBADMSG;
}

/* Of what is running, and ends with a power cut. */
static int write_runtime_object(int directory, struct file_name name, json_t *stolen)
{
	cleanup_json json_t *object = stolen;

	return object ? durable_replace_json(directory, name.text, object) : -ENOMEM;
}

static int read_object(int directory, struct file_name name, json_t **ret_object)
{
	int error = durable_read_json(directory, name.text, ret_object);

	return error == -EBADMSG ? set_aside(directory, name.text) : error;
}

/*
 * By hand, as nothing in it needs to be quoted: it is written for each new MAC and has hundreds of
 * entries. As JSON values they were a third of the CPU time that interfaces cost.
 */
static void write_memory(FILE *stream, const struct network_memory *memory)
{
	char subnet[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(memory->subnet, subnet);
	fprintf(stream, "{\"subnet\":\"%s\",\"reservations\":[", subnet);
	for (size_t i = 0; i < memory->reservations.count; i++) {
		const struct reservation *entry = &memory->reservations.entries[i];
		char mac[MAC_TEXT_SIZE], address[INET_ADDRSTRLEN];

		mac_to_text(entry->mac, mac);
		ipv4_to_text(ipv4_subnet_host(memory->subnet, entry->offset), address);
		fputs(i ? ",{\"mac\":\"" : "{\"mac\":\"", stream);
		fputs(mac, stream);
		fputs("\",\"address\":\"", stream);
		fputs(address, stream);
		fputs("\"}", stream);
	}
	fputs("]}", stream);
}

int records_save_memory(
	struct records *records, const char *network, const struct network_memory *memory)
{
	cleanup_free char *text = NULL;
	char *buffer = NULL;
	size_t size;
	FILE *stream;

	if (!memory->has_subnet)
		return -EINVAL;
	stream = open_memstream(&buffer, &size);
	if (!stream)
		return -ENOMEM;
	write_memory(stream, memory);
	text = text_take_stream(stream, &buffer);
	if (!text)
		return -ENOMEM;
	return durable_write(
		records->state_networks, network_file(network, ".json").text, text, size, 0600);
}

static bool decode_reservation(struct network_memory *memory, const json_t *value)
{
	struct in_addr address;
	struct mac mac;

	if (!get_mac(value, "mac", &mac) || !get_address(value, "address", &address) ||
		!ipv4_subnet_contains(memory->subnet, address))
		return false;
	return reservations_add(&memory->reservations, mac,
		       ntohl(address.s_addr) - ntohl(memory->subnet.address.s_addr)) == 0;
}

static bool decode_memory(const json_t *object, struct network_memory *memory)
{
	const json_t *list = json_object_get(object, "reservations");
	const json_t *value;
	size_t index;

	/* priv refuses any other, and the network could never be made again. */
	if (!get_subnet(object, "subnet", &memory->subnet) ||
		!ipv4_subnet_is_private(memory->subnet) || !json_is_array(list))
		return false;
	memory->has_subnet = true;
	json_array_foreach(list, index, value)
	{
		if (!decode_reservation(memory, value))
			return false;
	}
	return true;
}

int records_load_memory(
	struct records *records, const char *network, struct network_memory *ret_memory)
{
	struct file_name name = network_file(network, ".json");
	struct network_memory memory = {0};
	cleanup_json json_t *object = NULL;
	int error = read_object(records->state_networks, name, &object);

	if (error)
		return error;
	if (!decode_memory(object, &memory)) {
		reservations_done(&memory.reservations);
		return set_aside(records->state_networks, name.text);
	}
	*ret_memory = memory;
	return 0;
}

int records_remove_memory(struct records *records, const char *network)
{
	int leases_error = durable_remove(records->state, network_file(network, ".leases").text);
	int error = durable_remove(records->state_networks, network_file(network, ".json").text);

	return error ? error : leases_error;
}

int records_save_network(
	struct records *records, const char *network, const struct network_record *record)
{
	json_t *object = json_pack("{s:o, s:I}", "settings",
		network_settings_encode(&record->settings), "uid", (json_int_t)record->uid);

	if (object && record->subnet.prefix_length &&
		json_object_set_new(object, "subnet", make_subnet(record->subnet)) < 0) {
		json_decref(object);
		return -ENOMEM;
	}
	return write_runtime_object(
		records->runtime_networks, network_file(network, ".json"), object);
}

int records_load_network(
	struct records *records, const char *network, struct network_record *ret_record)
{
	struct file_name name = network_file(network, ".json");
	struct network_record record = {0};
	cleanup_json json_t *object = NULL;
	int error = read_object(records->runtime_networks, name, &object);

	if (error)
		return error;
	if (!get_uint32(object, "uid", &record.uid) ||
		!network_settings_decode(json_object_get(object, "settings"), &record.settings) ||
		(record.settings.mode != NETWORK_MODE_BRIDGED &&
			!get_subnet(object, "subnet", &record.subnet)))
		return set_aside(records->runtime_networks, name.text);
	*ret_record = record;
	return 0;
}

/* What dnsmasq reads. */
static const char *const service_suffixes[] = {".hosts", ".names", ".resolvers"};

int records_remove_network(struct records *records, const char *network)
{
	int error = durable_drop(records->runtime_networks, network_file(network, ".json").text);

	for (size_t i = 0; i < array_length(service_suffixes); i++) {
		int dropped = durable_drop(
			records->runtime_networks, network_file(network, service_suffixes[i]).text);

		error = error ? error : dropped;
	}
	return error;
}

int records_save_interface(
	struct records *records, uint32_t number, const struct interface_record *record)
{
	return write_runtime_object(records->runtime_interfaces, interface_file(number),
		json_pack("{s:s, s:I, s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:I}", "network",
			record->network, "uid", (json_int_t)record->uid, "mac",
			make_mac(record->mac), "interfaceId", make_uuid(record->interface_id),
			"address", make_address(record->address), "hostname", record->hostname,
			"toldName", record->told_name, "queues", (json_int_t)record->queues,
			"holderPid", (json_int_t)record->holder.pid, "holderId",
			(json_int_t)record->holder.id));
}

/* Absent from the record of an earlier version. */
static bool get_told_name(const json_t *object, char name[HOSTNAME_SIZE])
{
	return !json_object_get(object, "toldName") ||
	       (get_text(object, "toldName", name, HOSTNAME_SIZE) &&
		       (!*name || hostname_is_valid(name)));
}

static bool decode_interface(const json_t *object, struct interface_record *record)
{
	char uuid[UUID_TEXT_SIZE];

	/* Records of earlier versions have none. */
	record->holder.pid = (pid_t)json_integer_value(json_object_get(object, "holderPid"));
	record->holder.id = (uint64_t)json_integer_value(json_object_get(object, "holderId"));
	return get_text(object, "network", record->network, sizeof(record->network)) &&
	       network_name_is_valid(record->network) && get_uint32(object, "uid", &record->uid) &&
	       get_mac(object, "mac", &record->mac) &&
	       get_text(object, "interfaceId", uuid, sizeof(uuid)) &&
	       text_to_uuid(uuid, &record->interface_id) == 0 &&
	       get_address(object, "address", &record->address) &&
	       get_text(object, "hostname", record->hostname, sizeof(record->hostname)) &&
	       (!*record->hostname || hostname_is_valid(record->hostname)) &&
	       get_told_name(object, record->told_name) &&
	       get_uint32(object, "queues", &record->queues);
}

int records_load_interface(
	struct records *records, uint32_t number, struct interface_record *ret_record)
{
	struct file_name name = interface_file(number);
	struct interface_record record = {0};
	cleanup_json json_t *object = NULL;
	int error = read_object(records->runtime_interfaces, name, &object);

	if (error)
		return error;
	if (!decode_interface(object, &record))
		return set_aside(records->runtime_interfaces, name.text);
	*ret_record = record;
	return 0;
}

int records_remove_interface(struct records *records, uint32_t number)
{
	int error = helper_counters_remove(records->runtime_interfaces, number);
	int dropped = durable_drop(records->runtime_interfaces, interface_file(number).text);

	return dropped ? dropped : error;
}

int records_interfaces_directory(const struct records *records)
{
	return records->runtime_interfaces;
}

int records_open_leases(const struct records *records, const char *network, int *ret_fd)
{
	int fd = openat(records->state, network_file(network, ".leases").text,
		O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int records_save_hosts(struct records *records, const char *network, const char *text)
{
	return durable_replace(records->runtime_networks, network_file(network, ".hosts").text,
		text, strlen(text), 0600);
}

int records_save_names(struct records *records, const char *network, const char *text)
{
	return durable_replace(records->runtime_networks, network_file(network, ".names").text,
		text, strlen(text), 0600);
}

int records_save_resolvers(struct records *records, const char *network, const char *text)
{
	return durable_replace(records->runtime_networks, network_file(network, ".resolvers").text,
		text, strlen(text), 0600);
}

struct sweep {
	struct records *records;
	bool (*keep_network)(void *context, const char *network);
	bool (*keep_interface)(void *context, uint32_t number);
	void *context;
};

static int sweep_network_file(void *context, const char *file)
{
	struct sweep *sweep = context;
	char stem[DURABLE_NAME_SIZE];
	int error;

	if (durable_split_name(file, DURABLE_UNFINISHED, stem, sizeof(stem)))
		return durable_drop(sweep->records->runtime_networks, file);
	for (size_t i = 0; i < array_length(service_suffixes); i++)
		if (durable_split_name(file, service_suffixes[i], stem, sizeof(stem)) &&
			!sweep->keep_network(sweep->context, stem))
			return durable_drop(sweep->records->runtime_networks, file);
	if (!durable_split_name(file, ".json", stem, sizeof(stem)) ||
		sweep->keep_network(sweep->context, stem))
		return 0;
	error = durable_drop(sweep->records->runtime_networks, file);
	return error ? error : 1;
}

int records_sweep_networks(
	struct records *records, bool (*keep)(void *context, const char *network), void *context)
{
	struct sweep sweep = {.records = records, .keep_network = keep, .context = context};

	return durable_visit(records->runtime_networks, sweep_network_file, &sweep);
}

static int sweep_interface_file(void *context, const char *file)
{
	struct sweep *sweep = context;
	char stem[DURABLE_NAME_SIZE];
	char *end;
	uint32_t number;
	bool is_record;
	int error;

	if (durable_split_name(file, DURABLE_UNFINISHED, stem, sizeof(stem)))
		return durable_drop(sweep->records->runtime_interfaces, file);
	is_record = durable_split_name(file, ".json", stem, sizeof(stem));
	if (!is_record && !durable_split_name(file, HELPER_COUNTERS_SUFFIX, stem, sizeof(stem)))
		return 0;
	number = (uint32_t)strtoul(stem, &end, 16);
	if (strlen(stem) == INTERFACE_DIGITS && !*end &&
		sweep->keep_interface(sweep->context, number))
		return 0;
	error = durable_drop(sweep->records->runtime_interfaces, file);
	return error ? error : is_record;
}

int records_sweep_interfaces(
	struct records *records, bool (*keep)(void *context, uint32_t number), void *context)
{
	struct sweep sweep = {.records = records, .keep_interface = keep, .context = context};

	return durable_visit(records->runtime_interfaces, sweep_interface_file, &sweep);
}

static int sweep_memory_file(void *context, const char *file)
{
	struct sweep *sweep = context;
	char stem[DURABLE_NAME_SIZE];
	int error;

	if (!durable_split_name(file, ".json", stem, sizeof(stem)) ||
		sweep->keep_network(sweep->context, stem))
		return 0;
	error = records_remove_memory(sweep->records, stem);
	return error ? error : 1;
}

int records_sweep_memories(
	struct records *records, bool (*keep)(void *context, const char *network), void *context)
{
	struct sweep sweep = {.records = records, .keep_network = keep, .context = context};

	return durable_visit(records->state_networks, sweep_memory_file, &sweep);
}
