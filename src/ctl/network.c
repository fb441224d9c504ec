/* vmnetctl network: all that there is to know of one network. */
#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

#include <string.h>

#define VALUE_SIZE 512

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "";
}

static bool is_true(const json_t *object, const char *member)
{
	return json_is_true(json_object_get(object, member));
}

static long long number_of(const json_t *object, const char *member)
{
	return (long long)json_integer_value(json_object_get(object, member));
}

/* --- the values, from what get_network() answers --- */

static void tell_member(const json_t *network, const char *member, char *value)
{
	snprintf(value, VALUE_SIZE, "%s", text_of(network, member));
}

static void tell_network(const json_t *described, char *value)
{
	tell_member(json_object_get(described, "network"), "name", value);
}

static void tell_description(const json_t *described, char *value)
{
	tell_member(json_object_get(described, "network"), "description", value);
}

static void tell_mode(const json_t *described, char *value)
{
	static const char *const meanings[][2] = {
		{"shared", "shared (the world, the host and each other)"},
		{"host", "host (the host and each other)"},
		{"bridged", "bridged (neighbours on the host's LAN)"},
	};
	const char *mode = text_of(json_object_get(described, "network"), "mode");

	snprintf(value, VALUE_SIZE, "%s", mode);
	for (size_t i = 0; i < array_length(meanings); i++)
		if (strcmp(mode, meanings[i][0]) == 0)
			snprintf(value, VALUE_SIZE, "%s", meanings[i][1]);
}

static void tell_state(const json_t *described, char *value)
{
	static const char *const meanings[][2] = {
		{"absent", "not running: it starts with its first user"},
		{"starting", "starting: its DHCP and DNS do not serve yet"},
		{"lingering", "running, unused: it goes soon"},
	};
	const char *state = text_of(described, "state");

	snprintf(value, VALUE_SIZE, "%s", state);
	for (size_t i = 0; i < array_length(meanings); i++)
		if (strcmp(state, meanings[i][0]) == 0)
			snprintf(value, VALUE_SIZE, "%s", meanings[i][1]);
}

static void tell_users(const json_t *described, char *value)
{
	const json_t *uses = json_object_get(described, "uses");
	long long interfaces = number_of(uses, "interfaces");
	long long connections = number_of(uses, "connections");

	snprintf(value, VALUE_SIZE, "%lld interface%s, %lld connection%s", interfaces,
		interfaces == 1 ? "" : "s", connections, connections == 1 ? "" : "s");
}

static void tell_problem(const json_t *described, char *value)
{
	tell_member(described, "problem", value);
}

static void tell_subnet(const json_t *described, char *value)
{
	const json_t *network = json_object_get(described, "network");

	if (*text_of(network, "subnet"))
		snprintf(value, VALUE_SIZE, "%s, VMs up to %s", text_of(network, "subnet"),
			text_of(network, "lastAddress"));
}

static void tell_gateway(const json_t *described, char *value)
{
	tell_member(json_object_get(described, "network"), "gateway", value);
}

static void tell_ipv6(const json_t *described, char *value)
{
	const json_t *network = json_object_get(described, "network");

	if (*text_of(network, "ipv6Prefix"))
		snprintf(value, VALUE_SIZE, "%s, gateway %s", text_of(network, "ipv6Prefix"),
			text_of(network, "gateway6"));
}

static void tell_domain(const json_t *described, char *value)
{
	tell_member(json_object_get(described, "network"), "domain", value);
}

static void tell_mtu(const json_t *described, char *value)
{
	snprintf(value, VALUE_SIZE, "%lld bytes",
		number_of(json_object_get(described, "network"), "mtu"));
}

static void tell_link(const json_t *described, char *value)
{
	tell_member(json_object_get(described, "network"), "bridge", value);
}

static void tell_uplink(const json_t *described, char *value)
{
	tell_member(json_object_get(described, "network"), "uplink", value);
}

static void add_word(char *value, const char *word)
{
	size_t used = strlen(value);

	snprintf(value + used, VALUE_SIZE - used, "%s%s", used ? ", " : "", word);
}

static bool is_bridged(const json_t *described)
{
	return strcmp(text_of(json_object_get(described, "network"), "mode"), "bridged") == 0;
}

static void tell_services(const json_t *described, char *value)
{
	const json_t *settings = json_object_get(described, "settings");
	char dhcp[64];

	if (is_bridged(described))
		return;
	snprintf(
		dhcp, sizeof(dhcp), "DHCP (leases of %lld s)", number_of(settings, "leaseSeconds"));
	if (is_true(settings, "dhcp"))
		add_word(value, dhcp);
	if (is_true(settings, "dns"))
		add_word(value, "DNS");
	if (is_true(settings, "routerAdvertisement"))
		add_word(value, "IPv6 router advertisements");
	if (!*value)
		add_word(value, "nothing");
}

static void tell_settings(const json_t *described, char *value)
{
	const json_t *settings = json_object_get(described, "settings");

	if (is_true(settings, "isolation"))
		add_word(value, "VMs do not reach each other");
	if (is_true(settings, "lockMac"))
		add_word(value, "VMs send from their own MAC and address only");
	if (is_true(settings, "pinned"))
		add_word(value, "kept without users");
}

static const struct {
	const char *key;
	/* Leaves the value, VALUE_SIZE bytes, empty when there is nothing to tell. */
	void (*tell)(const json_t *described, char *value);
} lines[] = {
	{"network", tell_network},
	{"description", tell_description},
	{"mode", tell_mode},
	{"state", tell_state},
	{"problem", tell_problem},
	{"used by", tell_users},
	{"subnet", tell_subnet},
	{"gateway", tell_gateway},
	{"IPv6", tell_ipv6},
	{"domain", tell_domain},
	{"MTU", tell_mtu},
	{"bridge", tell_link},
	{"uplink", tell_uplink},
	{"serves", tell_services},
	{"rules", tell_settings},
};

/* --- the lists --- */

static const struct column interface_columns[] = {
	{"INTERFACE", "interfaceName"},
	{"MAC", "mac", .rank = 1},
	{"ADDRESS", "address"},
	{"HOSTNAME", "hostname", .can_cut = true},
	{"USER", "uid", .kind = CELL_NUMBER, .rank = 2},
	{"QUEUES", "queues", .kind = CELL_NUMBER, .rank = 3},
};
static const struct column lease_columns[] = {
	{"ADDRESS", "address"},
	{"MAC", "mac", .rank = 1},
	{"HOSTNAME", "hostname", .can_cut = true},
	{"INTERFACE", "interfaceName", .rank = 2},
	{"EXPIRES", "expiresIn", .kind = CELL_DURATION},
};
static const struct column forward_columns[] = {
	{"NUMBER", "id", .kind = CELL_NUMBER, .rank = 3},
	{"PROTOCOL", "protocol"},
	{"LISTEN", "listen"},
	{"TARGET", "target", .can_cut = true},
	{"ADDRESS", "address", .rank = 1},
	{"ORIGIN", "origin", .rank = 2},
};

static const struct list {
	const struct ctl_pages *pages;
	const char *title;
	const struct column *columns;
	size_t columns_count;
} lists[] = {
	{&ctl_interfaces, "interfaces", interface_columns, array_length(interface_columns)},
	{&ctl_leases, "leases", lease_columns, array_length(lease_columns)},
	{&ctl_forwards, "forwards", forward_columns, array_length(forward_columns)},
};

/* Those of one network; NULL: what failed has been said. */
static json_t *get_list(vmnet_broker_t *broker, const struct list *list, const char *network)
{
	cleanup_ctl_json json_t *whole = ctl_call_pages(broker, list->pages);
	json_t *ours = whole ? json_array() : NULL;
	json_t *entry;
	size_t i;

	json_array_foreach(json_object_get(whole, list->pages->list), i, entry)
	{
		if (strcmp(text_of(entry, "network"), network) == 0)
			json_array_append(ours, entry);
	}
	return ours;
}

/* How many use it makes room for which these are. */
static int move_uses(json_t *network)
{
	json_t *uses =
		json_pack("{s:O?, s:O?}", "connections", json_object_get(network, "connections"),
			"interfaces", json_object_get(network, "interfaces"));

	json_object_del(network, "connections");
	return json_object_set_new(network, "uses", uses);
}

/* DescribeNetwork's answer with the lists in it, or NULL: what failed has been said. */
static json_t *get_network(vmnet_broker_t *broker, const char *name)
{
	cleanup_ctl_json json_t *network =
		ctl_call(broker, "DescribeNetwork", json_pack("{s:s}", "network", name));

	if (!network || move_uses(network) < 0)
		return NULL;
	for (size_t i = 0; i < array_length(lists); i++) {
		json_t *list = get_list(broker, &lists[i], name);

		if (!list || json_object_set_new(network, lists[i].pages->list, list) < 0)
			return NULL;
	}
	return take_ptr(network);
}

static void print_value(const struct terminal *terminal, const char *key, const char *value)
{
	cleanup_free char *clean = terminal_clean(value);
	char bold[] = "\033[1m", normal[] = "\033[0m";

	if (!terminal->has_color)
		*bold = *normal = '\0';
	if (clean && *clean)
		printf("%s%-13s%s%s\n", bold, key, normal, clean);
}

static int print_network(const json_t *result)
{
	struct terminal terminal;

	terminal_look(&terminal);
	for (size_t i = 0; i < array_length(lines); i++) {
		char value[VALUE_SIZE] = "";

		lines[i].tell(result, value);
		print_value(&terminal, lines[i].key, value);
	}
	for (size_t i = 0; i < array_length(lists); i++) {
		const json_t *list = json_object_get(result, lists[i].pages->list);

		if (json_array_size(list) == 0)
			continue;
		printf("\n%s:\n", lists[i].title);
		table_write(stdout, &terminal, list, lists[i].columns, lists[i].columns_count, 0);
	}
	return table_finish();
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = NULL;
	cleanup_ctl_json json_t *result = NULL;

	if (arguments_count == 0) {
		log_error(CTL_TAG, "network: give the name of one; vmnetctl networks lists them");
		return 1;
	}
	broker = ctl_connect(ctl);
	result = broker ? get_network(broker, arguments[0]) : NULL;
	if (!result)
		return 1;
	return ctl->json ? ctl_print_json(result) : print_network(result);
}

const struct command network_command = {
	.name = "network",
	.help = "tell all of one network: what it is and does, and your VMs on it",
	.usage = "NETWORK",
	.arguments_max = 1,
	.run = run,
};
