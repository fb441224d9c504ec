/* Every key of a network: what it sets, and what is said of values it cannot have. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/config.h"

#include <arpa/inet.h>
#include <string.h>

static struct config config;

/* The configuration of one network "x" of mode shared, or what mode the members say. */
static const struct config_network *parse(const char *members)
{
	char text[4096];
	const struct config_network *network;

	snprintf(text, sizeof(text), "{\"x\": {%s%s}}",
		strstr(members, "\"mode\"") ? "" : "\"mode\": \"shared\", ", members);
	config_done(&config);
	config_init(&config);
	config_parse(&config, "f", text, strlen(text));
	config_check_overlaps(&config);
	network = config_find(&config, "x");
	assert_non_null(network);
	return network;
}

static const struct config_network *parse_valid(const char *members)
{
	const struct config_network *network = parse(members);

	assert_string_equal(network->error, "");
	return network;
}

static void assert_address(struct in_addr address, const char *expected)
{
	char text[INET_ADDRSTRLEN];

	assert_string_equal(inet_ntop(AF_INET, &address, text, sizeof(text)), expected);
}

static void what_is_not_given_has_a_default(void **state)
{
	const struct config_network *network = parse_valid("\"mode\": \"shared\"");

	assert_true(network->settings.ipv6);
	assert_false(network->settings.has_ipv6_prefix);
	assert_true(network->settings.dhcp);
	assert_true(network->settings.dns);
	assert_true(network->settings.router_advertisement);
	assert_int_equal(network->settings.lease_s, 600);
	assert_string_equal(network->settings.domain, "");
	assert_string_equal(network->settings.uplink, "");
	assert_false(network->settings.isolation);
	assert_false(network->settings.lock_mac);
	assert_false(network->pinned);
	assert_false(network->access.is_given);
	assert_int_equal(network->quotas.interfaces, CONFIG_QUOTA_UNSET);
	assert_int_equal(network->quotas.queues, CONFIG_QUOTA_UNSET);
	assert_int_equal(network->quotas.forwards, CONFIG_QUOTA_UNSET);
	assert_int_equal(network->reservations_count, 0);
}

static void simple_keys_are_taken(void **state)
{
	const struct config_network *network = parse_valid(
		"\"description\": \"for tests\", \"dhcp\": false, \"dns\": false, \"ra\": false,"
		" \"lease_time\": 120, \"domain\": \"lab.internal\", \"isolation\": true,"
		" \"lock_mac\": true, \"uplink\": \"eth0\", \"pinned\": true");

	assert_string_equal(network->description, "for tests");
	assert_false(network->settings.dhcp);
	assert_false(network->settings.dns);
	assert_false(network->settings.router_advertisement);
	assert_int_equal(network->settings.lease_s, 120);
	assert_string_equal(network->settings.domain, "lab.internal");
	assert_true(network->settings.isolation);
	assert_true(network->settings.lock_mac);
	assert_string_equal(network->settings.uplink, "eth0");
	assert_true(network->pinned);
}

static void ipv6_is_off_on_or_a_prefix(void **state)
{
	char text[INET6_ADDRSTRLEN];
	const struct config_network *network;

	assert_false(parse_valid("\"ipv6\": false")->settings.ipv6);
	assert_true(parse_valid("\"ipv6\": true")->settings.ipv6);
	network = parse_valid("\"ipv6\": \"fd12:3456:789a:1::/64\"");
	assert_true(network->settings.ipv6);
	assert_true(network->settings.has_ipv6_prefix);
	inet_ntop(AF_INET6, &network->settings.ipv6_prefix, text, sizeof(text));
	assert_string_equal(text, "fd12:3456:789a:1::");
}

static void a_range_is_a_subnet(void **state)
{
	const struct config_network *network = parse_valid(
		"\"start\": \"10.9.1.5\", \"end\": \"10.9.1.99\", \"mask\": \"255.255.0.0\"");

	assert_true(network->settings.has_subnet);
	assert_address(network->settings.subnet.address, "10.9.0.0");
	assert_int_equal(network->settings.subnet.prefix_length, 16);
	assert_int_equal(network->settings.gateway_offset, 256 + 5);
	assert_int_equal(network->settings.last_offset, 256 + 99);
}

static void reservations_are_taken(void **state)
{
	const struct config_network *network = parse_valid(
		"\"subnet\": \"10.9.1.0/24\", \"reservations\": ["
		"{\"mac\": \"52:54:00:00:00:01\", \"address\": \"10.9.1.254\", \"name\": \"web\"},"
		"{\"interface_id\": \"2c2e4a1c-1f3b-4b3e-9d5e-0123456789ab\", \"name\": \"db\"},"
		"{\"mac\": \"52:54:00:00:00:02\", \"address\": \"10.9.1.2\"}]");
	const struct config_reservation *reservations = network->reservations;

	assert_int_equal(network->reservations_count, 3);
	assert_false(reservations[0].by_interface_id);
	assert_int_equal(reservations[0].mac.bytes[5], 1);
	assert_true(reservations[0].has_address);
	assert_address(reservations[0].address, "10.9.1.254");
	assert_string_equal(reservations[0].name, "web");
	assert_true(reservations[1].by_interface_id);
	assert_int_equal(reservations[1].interface_id.bytes[15], 0xab);
	assert_false(reservations[1].has_address);
	assert_string_equal(reservations[1].name, "db");
	assert_string_equal(reservations[2].name, "");
	assert_address(reservations[2].address, "10.9.1.2");
}

static void names_need_no_subnet(void **state)
{
	assert_int_equal(parse_valid("\"reservations\": [{\"mac\": \"52:54:00:00:00:01\", "
				     "\"name\": \"web\"}]")
				 ->reservations_count,
		1);
}

static void allow_lists_are_taken(void **state)
{
	const struct config_access *access =
		&parse_valid("\"allow\": {\"users\": [\"alice\", 1000], \"groups\": [\"kvm\"]}")
			 ->access;

	assert_true(access->is_given);
	assert_int_equal(access->users.count, 2);
	assert_string_equal(access->users.entries[0].name, "alice");
	assert_false(access->users.entries[0].is_known);
	assert_string_equal(access->users.entries[1].name, "");
	assert_true(access->users.entries[1].is_known);
	assert_int_equal(access->users.entries[1].id, 1000);
	assert_int_equal(access->groups.count, 1);
	access = &parse_valid("\"allow\": {\"users\": []}")->access;
	assert_true(access->is_given);
	assert_int_equal(access->users.count + access->groups.count, 0);
}

static void quotas_are_taken(void **state)
{
	const struct config_quotas *quotas =
		&parse_valid("\"quotas\": {\"interfaces\": 0, \"queues\": 65535}")->quotas;

	assert_int_equal(quotas->interfaces, 0);
	assert_int_equal(quotas->queues, 65535);
	assert_int_equal(quotas->forwards, CONFIG_QUOTA_UNSET);
}

static void a_bridged_network_has_an_uplink(void **state)
{
	const struct config_network *network =
		parse_valid("\"mode\": \"bridged\", \"uplink\": \"eno1\", \"mtu\": 9000,"
			    " \"allow\": {\"users\": [0]}");

	assert_int_equal(network->settings.mode, NETWORK_MODE_BRIDGED);
	assert_string_equal(network->settings.uplink, "eno1");
}

#define ID "2c2e4a1c-1f3b-4b3e-9d5e-0123456789ab"

static void mistakes_are_told(void **state)
{
	static const struct {
		const char *members;
		const char *error;
	} cases[] = {
		{"\"description\": \"a\\nb\"", "f: x.description: \"a\\nb\": a text of at most 255 "
					       "bytes without control characters"},
		{"\"dhcp\": 1", "f: x.dhcp: 1: true or false"},
		{"\"pinned\": \"yes\"", "f: x.pinned: \"yes\": true or false"},
		{"\"lease_time\": 119", "f: x.lease_time: 119: a number of seconds from 120 to "
					"86400"},
		{"\"domain\": \"a..b\"", "f: x.domain: \"a..b\": a DNS domain of at most 40 bytes, "
					 "such as \"lab.internal\""},
		{"\"ipv6\": \"fd12::/48\"", "f: x.ipv6: \"fd12::/48\": true, false, or a private "
					    "prefix of 64 bits, such as "
					    "\"fd12:3456:789a:1::/64\""},
		{"\"ipv6\": \"2001:db8::/64\"", "f: x.ipv6: \"2001:db8::/64\": true, false"},
		{"\"ipv6\": \"fd12::1/64\"", "f: x.ipv6: \"fd12::1/64\": true, false"},
		{"\"ipv6\": null", "f: x.ipv6: null: true, false"},
		{"\"uplink\": \"a/b\"", "f: x.uplink: \"a/b\": the name of an interface of the "
					"host, such as \"eth0\""},
		{"\"uplink\": \"sixteen-letters-\"", "f: x.uplink: "},
		{"\"mode\": \"host\", \"uplink\": \"eth0\"",
			"f: x.uplink: means nothing on a network of mode host; remove it"},
		{"\"mode\": \"bridged\", \"uplink\": \"e\", \"lock_mac\": true",
			"f: x.lock_mac: means nothing on a network of mode bridged; remove it"},
		{"\"mode\": \"bridged\", \"uplink\": \"e\", \"isolation\": false",
			"f: x.isolation: means nothing on a network of mode bridged; remove it"},
		{"\"mode\": \"bridged\", \"uplink\": \"e\", \"subnet\": \"10.0.0.0/24\"",
			"f: x.subnet: means nothing on a network of mode bridged; remove it"},
		{"\"start\": \"10.0.0.1\"", "f: x: start, end and mask are needed together"},
		{"\"start\": \"10.0.0.1\", \"subnet\": \"10.0.0.0/24\"",
			"f: x.subnet: given with start, end or mask; give it alone, or these "
			"three"},
		{"\"start\": 1, \"end\": \"10.0.0.9\", \"mask\": \"255.255.255.0\"",
			"f: x.start: 1: the host's own IPv4 address"},
		{"\"start\": \"10.0.0.1\", \"end\": \"10.0.0.9\", \"mask\": \"255.0.255.0\"",
			"f: x.mask: no mask of 8 to 30 bits, such as \"255.255.255.0\""},
		{"\"start\": \"10.0.0.1\", \"end\": \"10.0.0.9\", \"mask\": \"0.0.0.0\"",
			"f: x.mask: no mask"},
		{"\"start\": \"10.0.0.1\", \"end\": \"10.0.0.2\", \"mask\": \"255.255.255.254\"",
			"f: x.mask: no mask"},
		{"\"start\": \"10.0.0.0\", \"end\": \"10.0.0.9\", \"mask\": \"255.255.255.0\"",
			"f: x.start: is the subnet's own address"},
		{"\"start\": \"10.0.0.9\", \"end\": \"10.0.0.9\", \"mask\": \"255.255.255.0\"",
			"f: x.end: must lie behind start"},
		{"\"start\": \"10.0.0.9\", \"end\": \"10.0.1.9\", \"mask\": \"255.255.255.0\"",
			"f: x.end: must lie behind start"},
		{"\"start\": \"10.0.0.9\", \"end\": \"10.0.0.255\", \"mask\": \"255.255.255.0\"",
			"f: x.end: must lie behind start"},
		{"\"start\": \"8.0.0.9\", \"end\": \"8.0.0.10\", \"mask\": \"255.255.255.0\"",
			"f: x.start: not private"},
		{"\"allow\": []", "f: x.allow: []: an object with lists is needed"},
		{"\"allow\": {}", "f: x.allow: {}: an object with lists is needed"},
		{"\"allow\": {\"user\": []}", "f: x.allow.user: unknown key; one of users, groups"},
		{"\"allow\": {\"users\": \"a\"}", "f: x.allow.users: a list of at most 256"},
		{"\"allow\": {\"users\": [\"a\", \"10\"]}",
			"f: x.allow.users[1]: \"10\": a name, or a number without quotes"},
		{"\"allow\": {\"groups\": [-1]}", "f: x.allow.groups[0]: -1: a name"},
		{"\"allow\": {\"groups\": [4294967295]}", "f: x.allow.groups[0]: 4294967295: a"},
		{"\"allow\": {\"groups\": [\"a b\"]}", "f: x.allow.groups[0]: \"a b\": a name"},
		{"\"quotas\": 3", "f: x.quotas: 3: an object is needed"},
		{"\"quotas\": {\"interface\": 3}", "f: x.quotas.interface: unknown key; one of "
						   "interfaces, queues, forwards"},
		{"\"quotas\": {\"queues\": 65536}",
			"f: x.quotas.queues: 65536: a number from 0 to 65535"},
		{"\"quotas\": {\"queues\": 1, \"queues\": 2}",
			"f: x.quotas: keys given twice inside it"},
		{"\"reservations\": {}", "f: x.reservations: a list of at most 1024 objects"},
		{"\"reservations\": [1]", "f: x.reservations[0]: an object is needed"},
		{"\"reservations\": [{\"name\": \"a\"}]",
			"f: x.reservations[0]: one of mac and interface_id is needed, and not "
			"both"},
		{"\"reservations\": [{\"mac\": \"52:54:00:00:00:01\", \"interface_id\": \"" ID
		 "\", \"name\": \"a\"}]",
			"f: x.reservations[0]: one of mac and interface_id"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\"}]",
			"f: x.reservations[0]: address, name or both are needed"},
		{"\"reservations\": [{\"mac\": \"01:00:00:00:00:01\", \"name\": \"a\"}]",
			"f: x.reservations[0].mac: \"01:00:00:00:00:01\": a VM's MAC"},
		{"\"reservations\": [{\"mac\": \"fe:76:00:00:00:01\", \"name\": \"a\"}]",
			"f: x.reservations[0].mac: "},
		{"\"reservations\": [{\"interface_id\": \"x\", \"name\": \"a\"}]",
			"f: x.reservations[0].interface_id: \"x\": a UUID"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\", \"name\": \"a_b\"}]",
			"f: x.reservations[0].name: \"a_b\": a DNS label"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\", \"name\": \"Host\"}]",
			"f: x.reservations[0].name: \"Host\": a DNS label"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\", \"nam\": \"a\"}]",
			"f: x.reservations[0].nam: unknown key; one of mac, interface_id, "
			"address, name"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\", \"address\": \"10.0.0.2\"}]",
			"f: x.reservations: addresses need a subnet of the network's own"},
		{"\"subnet\": \"10.0.0.0/24\", \"reservations\": [{\"interface_id\": \"" ID
		 "\", \"address\": \"10.0.1.2\"}]",
			"f: x.reservations: address 10.0.1.2: none for a VM in subnet "
			"10.0.0.0/24"},
		{"\"subnet\": \"10.0.0.0/24\", \"reservations\": [{\"interface_id\": \"" ID
		 "\", \"address\": \"10.0.0.255\"}]",
			"f: x.reservations: address 10.0.0.255: none for a VM"},
		{"\"subnet\": \"10.0.0.0/24\", \"reservations\": [{\"interface_id\": \"" ID
		 "\", \"address\": \"10.0.0.1\"}]",
			"f: x.reservations: address 10.0.0.1: the host's own on this network"},
		{"\"start\": \"10.0.0.7\", \"end\": \"10.0.0.9\", \"mask\": \"255.255.255.0\", "
		 "\"reservations\": [{\"interface_id\": \"" ID "\", \"address\": \"10.0.0.7\"}]",
			"f: x.reservations: address 10.0.0.7: the host's own on this network"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\", \"name\": \"a\"}, "
		 "{\"interface_id\": \"" ID "\", \"name\": \"b\"}]",
			"f: x.reservations[1].interface_id: is reserved for by an earlier entry "
			"too; make them one"},
		{"\"reservations\": [{\"interface_id\": \"" ID "\", \"name\": \"a\"}, "
		 "{\"mac\": \"52:54:00:00:00:01\", \"name\": \"A\"}]",
			"f: x.reservations[1].name: \"A\": is an earlier entry's; choose another"},
		{"\"subnet\": \"10.0.0.0/24\", \"reservations\": ["
		 "{\"interface_id\": \"" ID "\", \"address\": \"10.0.0.2\"}, "
		 "{\"mac\": \"52:54:00:00:00:01\", \"address\": \"10.0.0.2\"}]",
			"f: x.reservations[1].address: is an earlier entry's; choose another"},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		const struct config_network *network = parse(cases[i].members);

		if (strncmp(network->error, cases[i].error, strlen(cases[i].error)) != 0)
			fail_msg("%s:\n got  %s\n want %s", cases[i].members, network->error,
				cases[i].error);
	}
}

static void every_mistake_is_kept(void **state)
{
	const struct config_network *network =
		parse("\"mtu\": 1, \"dhcp\": 1, \"colour\": \"red\", \"quotas\": {\"x\": 1}");

	assert_int_equal(network->further_errors_count, 3);
	assert_string_equal(network->error, "f: x.mtu: 1: a number of bytes from 1280 to 65520");
	assert_string_equal(network->further_errors[0], "f: x.dhcp: 1: true or false");
	assert_non_null(strstr(network->further_errors[1], "f: x.colour: unknown key"));
	assert_non_null(strstr(network->further_errors[2], "f: x.quotas.x: unknown key"));
}

static void there_is_an_end_to_the_mistakes(void **state)
{
	char members[2048];
	size_t used = 0;

	for (int i = 0; i < 100; i++)
		used += (size_t)snprintf(
			members + used, sizeof(members) - used, "%s\"k%d\": 1", i ? ", " : "", i);
	assert_int_equal(parse(members)->further_errors_count, CONFIG_ERRORS_MAX - 1);
}

static void a_prefix_belongs_to_one_network(void **state)
{
	static const char text[] = "{\"a\": {\"mode\": \"host\", \"ipv6\": \"fd00::/64\"},"
				   " \"b\": {\"mode\": \"host\", \"ipv6\": \"fd00:0::/64\"}}";

	config_done(&config);
	config_init(&config);
	config_parse(&config, "f", text, strlen(text));
	config_check_overlaps(&config);
	assert_string_equal(config_find(&config, "a")->error, "");
	assert_string_equal(config_find(&config, "b")->error,
		"f: b.ipv6: is the prefix of network \"a\" (f) too");
}

static int free_config(void **state)
{
	config_done(&config);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_given_has_a_default),
		cmocka_unit_test(simple_keys_are_taken),
		cmocka_unit_test(ipv6_is_off_on_or_a_prefix),
		cmocka_unit_test(a_range_is_a_subnet),
		cmocka_unit_test(reservations_are_taken),
		cmocka_unit_test(names_need_no_subnet),
		cmocka_unit_test(allow_lists_are_taken),
		cmocka_unit_test(quotas_are_taken),
		cmocka_unit_test(a_bridged_network_has_an_uplink),
		cmocka_unit_test(mistakes_are_told),
		cmocka_unit_test(every_mistake_is_kept),
		cmocka_unit_test(there_is_an_end_to_the_mistakes),
		cmocka_unit_test(a_prefix_belongs_to_one_network),
	};

	return cmocka_run_group_tests(tests, NULL, free_config);
}
