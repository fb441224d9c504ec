/* The pure half of priv: names, tags, pools, and the texts given to nftables and dnsmasq. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "priv/command.h"
#include "priv/names.h"
#include "priv/nat.h"
#include "priv/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define LONGEST_NAME "n2345678901234567890123456789012"

static struct ipv4_subnet subnet_of(const char *text)
{
	struct ipv4_subnet subnet;

	assert_int_equal(text_to_ipv4_subnet(text, &subnet), 0);
	return subnet;
}

static void modes_have_texts(void **state)
{
	enum network_mode mode = NETWORK_MODE_COUNT;

	assert_int_equal(network_mode_from_text("shared", &mode), 0);
	assert_int_equal(mode, NETWORK_MODE_SHARED);
	assert_int_equal(network_mode_from_text("host", &mode), 0);
	assert_int_equal(mode, NETWORK_MODE_HOST);
	assert_int_equal(network_mode_from_text("Host", &mode), -EINVAL);
	assert_int_equal(network_mode_from_text("", &mode), -EINVAL);
	assert_int_equal(mode, NETWORK_MODE_HOST);
	assert_string_equal(network_mode_to_text(NETWORK_MODE_SHARED), "shared");
	assert_string_equal(network_mode_to_text(NETWORK_MODE_HOST), "host");
	assert_string_equal(network_mode_to_text(NETWORK_MODE_BRIDGED), "bridged");
}

static struct link_port vm_port(bool isolated)
{
	return (struct link_port){
		.isolated = isolated,
		.locked = true,
		.mac = {{0x52, 0x54, 0, 0xab, 0xcd, 0xef}},
		.address = {htonl(0xc0a8a4fe)},
	};
}

static struct link_port named_port(void)
{
	struct link_port port = vm_port(true);

	port.named = true;
	port.owner = LINK_OWNER_MAX;
	return port;
}

static void tags_are_written_as_documented(void **state)
{
	struct link_tag bridge = {
		.instance = 0xc0ffee,
		.kind = LINK_KIND_BRIDGE,
		.mode = NETWORK_MODE_HOST,
		.network = "blue",
	};
	struct link_tag tap = {
		.instance = 0xffffffff, .kind = LINK_KIND_TAP, .network = LONGEST_NAME};
	char text[LINK_TAG_SIZE];

	link_tag_to_text(&bridge, text);
	assert_string_equal(text, "vmnet/1/00c0ffee/bridge/host/blue");
	link_tag_to_text(&tap, text);
	assert_string_equal(text, "vmnet/1/ffffffff/tap/-/" LONGEST_NAME);
	tap.port.isolated = true;
	link_tag_to_text(&tap, text);
	assert_string_equal(text, "vmnet/1/ffffffff/tap/isolated/" LONGEST_NAME);
	tap.port = vm_port(false);
	link_tag_to_text(&tap, text);
	assert_string_equal(
		text, "vmnet/1/ffffffff/tap/lock,52:54:00:ab:cd:ef,192.168.164.254/" LONGEST_NAME);
	tap.port = vm_port(true);
	link_tag_to_text(&tap, text);
	assert_string_equal(text,
		"vmnet/1/ffffffff/tap/isolated,lock,52:54:00:ab:cd:ef,192.168.164.254"
		"/" LONGEST_NAME);
	tap.port = (struct link_port){.named = true};
	link_tag_to_text(&tap, text);
	assert_string_equal(text, "vmnet/1/ffffffff/tap/named,0/" LONGEST_NAME);
	tap.port = named_port();
	link_tag_to_text(&tap, text);
	assert_string_equal(text,
		"vmnet/1/ffffffff/tap/isolated,named,4294967294,lock,52:54:00:ab:cd:ef,"
		"192.168.164.254/" LONGEST_NAME);
}

static void tags_come_back_from_their_text(void **state)
{
	const struct link_tag tags[] = {
		{0, LINK_KIND_BRIDGE, NETWORK_MODE_SHARED, "a", {0}},
		{0xc0ffee, LINK_KIND_BRIDGE, NETWORK_MODE_HOST, "A.b-c_d", {0}},
		{0xffffffff, LINK_KIND_TAP, NETWORK_MODE_SHARED, LONGEST_NAME, {0}},
		{1, LINK_KIND_TAP, NETWORK_MODE_SHARED, "a", {.isolated = true}},
		{1, LINK_KIND_TAP, NETWORK_MODE_SHARED, "a", vm_port(false)},
		{1, LINK_KIND_TAP, NETWORK_MODE_SHARED, LONGEST_NAME, vm_port(true)},
		{1, LINK_KIND_TAP, NETWORK_MODE_SHARED, "a", {.named = true, .owner = 1000}},
		{1, LINK_KIND_TAP, NETWORK_MODE_SHARED, LONGEST_NAME, named_port()},
	};

	for (size_t i = 0; i < array_length(tags); i++) {
		char text[LINK_TAG_SIZE];
		struct link_tag tag;

		link_tag_to_text(&tags[i], text);
		assert_int_equal(link_tag_from_text(text, &tag), 0);
		assert_int_equal(tag.instance, tags[i].instance);
		assert_int_equal(tag.kind, tags[i].kind);
		assert_int_equal(tag.mode, tags[i].mode);
		assert_string_equal(tag.network, tags[i].network);
		assert_int_equal(tag.port.isolated, tags[i].port.isolated);
		assert_int_equal(tag.port.locked, tags[i].port.locked);
		assert_int_equal(tag.port.named, tags[i].port.named);
		assert_int_equal(tag.port.owner, tags[i].port.owner);
		assert_memory_equal(&tag.port.mac, &tags[i].port.mac, sizeof(tag.port.mac));
		assert_int_equal(tag.port.address.s_addr, tags[i].port.address.s_addr);
	}
}

static void foreign_aliases_are_no_tags(void **state)
{
	static const char *const bad[] = {
		"",
		"uplink",
		"vmnet",
		"vmnet/1/",
		"vmnet/1/00c0ffee",
		"vmnet/1/00c0ffee/bridge",
		"vmnet/1/00c0ffee/bridge/shared",
		"vmnet/1/00c0ffee/bridge/shared/",
		"vmnet/2/00c0ffee/bridge/shared/blue",
		"vmnet/1/00C0FFEE/bridge/shared/blue",
		"vmnet/1/c0ffee/bridge/shared/blue",
		"vmnet/1/000c0ffee/bridge/shared/blue",
		"vmnet/1/00c0ffeg/bridge/shared/blue",
		"vmnet/1/00c0ffee/switch/shared/blue",
		"vmnet/1/00c0ffee/bridge/routed/blue",
		"vmnet/1/00c0ffee/bridge/shared,/blue",
		"vmnet/1/00c0ffee/bridge/shared,a\"b/blue",
		"vmnet/1/00c0ffee/bridge/shared,eth*/blue",
		"vmnet/1/00c0ffee/bridge/shared,eth0,/blue",
		"vmnet/1/00c0ffee/bridge/-/blue",
		"vmnet/1/00c0ffee/tap/shared/blue",
		"vmnet/1/00c0ffee/tap//blue",
		"vmnet/1/00c0ffee/tap/-,isolated/blue",
		"vmnet/1/00c0ffee/tap/isolated,/blue",
		"vmnet/1/00c0ffee/tap/isolated,isolated/blue",
		"vmnet/1/00c0ffee/tap/named/blue",
		"vmnet/1/00c0ffee/tap/named,/blue",
		"vmnet/1/00c0ffee/tap/named,root/blue",
		"vmnet/1/00c0ffee/tap/named,-1/blue",
		"vmnet/1/00c0ffee/tap/named,07/blue",
		"vmnet/1/00c0ffee/tap/named,4294967295/blue",
		"vmnet/1/00c0ffee/tap/named,1,named,1/blue",
		"vmnet/1/00c0ffee/tap/named,1,isolated/blue",
		"vmnet/1/00c0ffee/tap/lock,52:54:00:ab:cd:ef,10.0.0.2,named,1/blue",
		"vmnet/1/00c0ffee/bridge/named,1/blue",
		"vmnet/1/00c0ffee/tap/lock/blue",
		"vmnet/1/00c0ffee/tap/lock,/blue",
		"vmnet/1/00c0ffee/tap/lock,52:54:00:ab:cd:ef/blue",
		"vmnet/1/00c0ffee/tap/lock,52:54:00:ab:cd:ef,/blue",
		"vmnet/1/00c0ffee/tap/lock,52:54:00:AB:CD:EF,10.0.0.2/blue",
		"vmnet/1/00c0ffee/tap/lock,52:54:00:ab:cd:ef,10.0.0.2,isolated/blue",
		"vmnet/1/00c0ffee/tap/lock,52:54:00:ab:cd:ef,10.0.0.02/blue",
		"vmnet/1/00c0ffee/tap/lock,10.0.0.2,52:54:00:ab:cd:ef/blue",
		"vmnet/1/00c0ffee/tap/isolated,lock,52:54:00:ab:cd:ef/blue",
		"vmnet/1/00c0ffee/bridge/isolated/blue",
		"vmnet/1/00c0ffee/bridge/shared/blue/x",
		"vmnet/1/00c0ffee/bridge/shared/bl ue",
		"vmnet/1/00c0ffee/bridge/shared/" LONGEST_NAME "3",
		" vmnet/1/00c0ffee/bridge/shared/blue",
		"vmnet/1/00c0ffee/bridge/shared/" LONGEST_NAME LONGEST_NAME LONGEST_NAME,
	};
	struct link_tag tag = {.instance = 77};

	for (size_t i = 0; i < array_length(bad); i++)
		assert_int_equal(link_tag_from_text(bad[i], &tag), -EINVAL);
	assert_int_equal(tag.instance, 77);
}

/* These names are in the kernel while a broker is exchanged for a newer one: they may never change.
 */
static void bridge_names_stay_what_they_are(void **state)
{
	char name[IFNAMSIZ];
	char other[IFNAMSIZ];
	char text[MAC_TEXT_SIZE];

	bridge_interface_name(0xc0ffee, "blue", name);
	assert_string_equal(name, "vmbr9e246ed4");
	mac_to_text(bridge_mac(0xc0ffee, "blue"), text);
	assert_string_equal(text, "fe:77:9e:24:6e:d4");
	bridge_interface_name(0xc0ffee, "Blue", other);
	assert_string_not_equal(name, other);
	bridge_interface_name(0xc0ffef, "blue", other);
	assert_string_not_equal(name, other);
	bridge_interface_name(0, LONGEST_NAME, name);
	assert_int_equal(strlen(name), 12);
}

static void tap_names_and_macs_follow_the_number(void **state)
{
	char name[IFNAMSIZ];
	char altname[LINK_ALTNAME_SIZE];
	char text[MAC_TEXT_SIZE];

	tap_interface_name(0xabc, name);
	assert_string_equal(name, "vmtap00000abc");
	tap_interface_name(0xffffffff, name);
	assert_string_equal(name, "vmtapffffffff");
	tap_altname("blue", 0xabc, altname);
	assert_string_equal(altname, "vmnet-blue-00000abc");
	tap_altname(LONGEST_NAME, 0xffffffff, altname);
	assert_string_equal(altname, "vmnet-" LONGEST_NAME "-ffffffff");
	bridge_altname(LONGEST_NAME, altname);
	assert_string_equal(altname, "vmnet-" LONGEST_NAME);
	mac_to_text(tap_mac(0x01020304), text);
	assert_string_equal(text, "fe:76:01:02:03:04");
}

static void our_macs_are_reserved(void **state)
{
	assert_true(mac_is_reserved(tap_mac(5)));
	assert_true(mac_is_reserved(bridge_mac(5, "blue")));
	assert_false(mac_is_reserved((struct mac){{0xfe, 0x75, 1, 2, 3, 4}}));
	assert_false(mac_is_reserved((struct mac){{0x52, 0x77, 1, 2, 3, 4}}));
}

static void tables_are_named_by_instance(void **state)
{
	char name[NAT_TABLE_SIZE];

	nat_table_name(0xc0ffee, name);
	assert_string_equal(name, "vmnet_00c0ffee");
	guard_table_name(0xc0ffee, name);
	assert_string_equal(name, "vmnet_guard_00c0ffee");
}

static void domains_are_one_label_and_vmnet(void **state)
{
	static const char *const cases[][2] = {
		{"blue", "blue.vmnet"},
		{"Blue", "blue.vmnet"},
		{"a..b", "a--b.vmnet"},
		{"a_b.", "a-b.vmnet"},
		{"x--", "x.vmnet"},
		{LONGEST_NAME, LONGEST_NAME ".vmnet"},
	};
	char domain[NETWORK_DOMAIN_SIZE];

	for (size_t i = 0; i < array_length(cases); i++) {
		assert_true(network_name_is_valid(cases[i][0]));
		network_domain(cases[i][0], domain);
		assert_string_equal(domain, cases[i][1]);
	}
}

static void pools_leave_out_gateway_and_broadcast(void **state)
{
	static const struct {
		const char *subnet;
		struct address_pool pool;
	} cases[] = {
		{"192.168.64.0/24", {2, 191, 192, 254}},
		{"192.168.64.0/28", {2, 11, 12, 14}},
		{"192.168.64.0/29", {2, 5, 6, 6}},
		{"192.168.64.0/30", {2, 2, 3, 2}},
		{"10.0.0.0/8", {2, 16777214 - 4096, 16777215 - 4096, 16777214}},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		struct address_pool pool;

		address_pool_split(subnet_of(cases[i].subnet), 0, 0, &pool);
		assert_memory_equal(&pool, &cases[i].pool, sizeof(pool));
	}
}

static void pools_cover_every_size_without_overlap(void **state)
{
	for (uint8_t prefix_length = 8; prefix_length <= 30; prefix_length++) {
		struct ipv4_subnet subnet = {.prefix_length = prefix_length};
		struct address_pool pool;

		address_pool_split(subnet, 0, 0, &pool);
		assert_int_equal(pool.reserved_first, 2);
		assert_true(pool.reserved_last >= pool.reserved_first);
		assert_int_equal(pool.dynamic_first, pool.reserved_last + 1);
		assert_int_equal(pool.dynamic_last, ipv4_subnet_size(subnet) - 2);
	}
}

static void pools_keep_to_what_was_asked_for(void **state)
{
	struct address_pool pool;

	address_pool_split(subnet_of("192.168.200.0/24"), 253, 254, &pool);
	assert_int_equal(pool.reserved_first, 254);
	assert_int_equal(pool.reserved_last, 254);
	assert_true(pool.dynamic_first > pool.dynamic_last);
	address_pool_split(subnet_of("192.168.200.0/24"), 10, 49, &pool);
	assert_int_equal(pool.reserved_first, 11);
	assert_int_equal(pool.dynamic_last, 49);
}

static void offsets_leave_room_for_a_vm(void **state)
{
	struct ipv4_subnet subnet = subnet_of("192.168.200.0/24");

	assert_true(address_offsets_are_valid(subnet, 0, 0));
	assert_true(address_offsets_are_valid(subnet, 253, 254));
	assert_true(address_offsets_are_valid(subnet, 1, 2));
	assert_false(address_offsets_are_valid(subnet, 254, 0));
	assert_false(address_offsets_are_valid(subnet, 10, 10));
	assert_false(address_offsets_are_valid(subnet, 10, 9));
	assert_false(address_offsets_are_valid(subnet, 1, 255));
}

static void only_rfc1918_is_private(void **state)
{
	static const char *const good[] = {"10.0.0.0/8", "10.255.255.252/30", "172.16.0.0/12",
		"172.31.255.0/24", "192.168.0.0/16", "192.168.64.0/24"};
	static const char *const bad[] = {"9.0.0.0/8", "11.0.0.0/8", "172.0.0.0/8", "172.32.0.0/16",
		"172.15.255.0/24", "192.0.0.0/8", "192.169.0.0/16", "192.168.0.0/15",
		"100.64.0.0/10", "127.0.0.0/8", "0.0.0.0/8"};

	for (size_t i = 0; i < array_length(good); i++)
		assert_true(ipv4_subnet_is_private(subnet_of(good[i])));
	for (size_t i = 0; i < array_length(bad); i++)
		assert_false(ipv4_subnet_is_private(subnet_of(bad[i])));
}

static struct bridge_facts facts_of(const char *network, enum network_mode mode, const char *subnet)
{
	struct bridge_facts facts = {
		.mode = mode, .subnet = subnet_of(subnet), .gateway_offset = 1, .mtu = 1400};

	assert_int_equal(text_copy(facts.network, sizeof(facts.network), network), 0);
	bridge_interface_name(1, network, facts.name);
	return facts;
}

static void without_bridges_the_table_goes(void **state)
{
	cleanup_free char *commands = nat_build_commands(0xc0ffee, false, NULL, 0);

	assert_string_equal(
		commands, "add table inet vmnet_00c0ffee\ndelete table inet vmnet_00c0ffee\n");
}

/* Rules are matched in order, so that the order of these texts is what protects the networks. */
static void assert_in_order(const char *text, const char *const *parts, size_t parts_count)
{
	for (size_t i = 0; i < parts_count; i++) {
		text = strstr(text, parts[i]);
		if (!text)
			fail_msg("missing, or too early: %s", parts[i]);
		text += strlen(parts[i]);
	}
}

static void a_shared_network_gets_out_and_nobody_in(void **state)
{
	struct bridge_facts facts = facts_of("blue", NETWORK_MODE_SHARED, "192.168.64.0/24");
	cleanup_free char *commands = nat_build_commands(1, false, &facts, 1);
	const char *name = facts.name;
	char rules[10][160];
	const char *parts[array_length(rules)];

	snprintf(rules[0], sizeof(rules[0]), "delete table inet vmnet_00000001\n");
	snprintf(rules[1], sizeof(rules[1]), "iifname \"%s\" oifname \"%s\" accept\n", name, name);
	snprintf(rules[2], sizeof(rules[2]),
		"iifname \"%s\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n",
		name);
	snprintf(rules[3], sizeof(rules[3]),
		"oifname \"%s\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n",
		name);
	snprintf(rules[4], sizeof(rules[4]), "iifname \"%s\" ip saddr != 192.168.64.0/24 drop\n",
		name);
	snprintf(rules[5], sizeof(rules[5]), "iifname \"%s\" ct state invalid drop\n", name);
	snprintf(rules[6], sizeof(rules[6]), "oifname \"%s\" ct state established,related accept\n",
		name);
	snprintf(rules[7], sizeof(rules[7]), "oifname \"%s\" drop\n", name);
	snprintf(rules[8], sizeof(rules[8]), "} masquerade to :1024-65535\n");
	snprintf(rules[9], sizeof(rules[9]), "255.255.255.255 } masquerade\n");
	for (size_t i = 0; i < array_length(rules); i++)
		parts[i] = rules[i];
	assert_in_order(commands, parts, array_length(parts));
}

static void what_pasta_sends_to_nobody_is_not_answered(void **state)
{
	struct bridge_facts facts[] = {facts_of("blue", NETWORK_MODE_SHARED, "192.168.64.0/24"),
		facts_of("red", NETWORK_MODE_HOST, "192.168.65.0/24")};
	cleanup_free char *rootless = nat_build_commands(1, true, facts, array_length(facts));
	cleanup_free char *system = nat_build_commands(1, false, facts, array_length(facts));
	char rule[128];

	snprintf(rule, sizeof(rule),
		"hook input priority filter; policy accept;\n"
		"iifname != { \"lo\", \"%s\", \"%s\" } ct state invalid drop\n",
		facts[0].name, facts[1].name);
	assert_non_null(strstr(rootless, rule));
	assert_null(strstr(system, "hook input"));
}

static void an_uplink_is_the_only_way_out(void **state)
{
	struct bridge_facts facts = facts_of("blue", NETWORK_MODE_SHARED, "192.168.64.0/24");
	char rules[3][96];
	const char *parts[array_length(rules)];
	cleanup_free char *commands = NULL;

	assert_int_equal(text_copy(facts.uplink, sizeof(facts.uplink), "eth1"), 0);
	commands = nat_build_commands(1, false, &facts, 1);
	snprintf(rules[0], sizeof(rules[0]), "iifname \"%s\" ct direction reply", facts.name);
	snprintf(rules[1], sizeof(rules[1]), "iifname \"%s\" oifname != \"eth1\" drop\n",
		facts.name);
	snprintf(rules[2], sizeof(rules[2]), "oifname \"%s\" ct state established", facts.name);
	for (size_t i = 0; i < array_length(rules); i++)
		parts[i] = rules[i];
	assert_in_order(commands, parts, array_length(parts));
}

static void a_host_network_neither_leaves_nor_masquerades(void **state)
{
	struct bridge_facts facts = facts_of("h", NETWORK_MODE_HOST, "10.0.0.0/24");
	cleanup_free char *commands = nat_build_commands(1, false, &facts, 1);
	char rules[3][96];
	const char *parts[array_length(rules)];

	snprintf(rules[0], sizeof(rules[0]), "iifname \"%s\" oifname \"%s\" accept\n", facts.name,
		facts.name);
	snprintf(rules[1], sizeof(rules[1]), "iifname \"%s\" drop\n", facts.name);
	snprintf(rules[2], sizeof(rules[2]), "oifname \"%s\" drop\n", facts.name);
	for (size_t i = 0; i < array_length(rules); i++)
		parts[i] = rules[i];
	assert_in_order(commands, parts, array_length(parts));
	assert_null(strstr(commands, "masquerade"));
	assert_null(strstr(commands, "established"));
}

static struct bridge_facts facts_with_ipv6(enum network_mode mode)
{
	static const uint8_t prefix[IPV6_PREFIX_SIZE] = {0xfd, 0x12, 0x34, 0, 0, 0, 0, 0x7};
	struct bridge_facts facts = facts_of("blue", mode, "192.168.64.0/24");

	facts.has_ipv6 = true;
	memcpy(facts.ipv6_prefix, prefix, sizeof(prefix));
	return facts;
}

static void ipv6_leaves_from_its_prefix_only(void **state)
{
	struct bridge_facts facts = facts_with_ipv6(NETWORK_MODE_SHARED);
	cleanup_free char *commands = nat_build_commands(1, false, &facts, 1);
	char rules[5][160];
	const char *parts[array_length(rules)];

	snprintf(rules[0], sizeof(rules[0]),
		"iifname \"%s\" ip6 saddr != fd12:3400:0:7::/64 drop\n", facts.name);
	snprintf(rules[1], sizeof(rules[1]),
		"iifname \"%s\" ip6 daddr { ::/96, ::ffff:0:0/96 } drop\n", facts.name);
	snprintf(rules[2], sizeof(rules[2]), "oifname \"%s\" ct state established,related accept\n",
		facts.name);
	snprintf(rules[3], sizeof(rules[3]),
		"oifname != \"%s\" ip6 saddr fd12:3400:0:7::/64 ip6 daddr != ff00::/8"
		" meta l4proto { tcp, udp } masquerade to :1024-65535\n",
		facts.name);
	snprintf(rules[4], sizeof(rules[4]),
		"ip6 saddr fd12:3400:0:7::/64 ip6 daddr != ff00::/8 masquerade\n");
	for (size_t i = 0; i < array_length(rules); i++)
		parts[i] = rules[i];
	assert_in_order(commands, parts, array_length(parts));
}

static void without_a_prefix_no_ipv6_leaves(void **state)
{
	struct bridge_facts facts = facts_of("blue", NETWORK_MODE_SHARED, "192.168.64.0/24");
	cleanup_free char *commands = nat_build_commands(1, false, &facts, 1);
	char rule[96];

	snprintf(rule, sizeof(rule), "iifname \"%s\" meta nfproto ipv6 drop\n", facts.name);
	assert_non_null(strstr(commands, rule));
	assert_null(strstr(commands, "ip6"));
}

static void prefixes_are_local_stable_and_different(void **state)
{
	static const uint8_t known[IPV6_PREFIX_SIZE] = {
		0xfd, 0xa0, 0x78, 0x88, 0xa5, 0x3e, 0x07, 0xe9};
	uint8_t prefix[IPV6_PREFIX_SIZE], other[IPV6_PREFIX_SIZE];
	struct in6_addr gateway;
	char text[INET6_ADDRSTRLEN];

	network_ipv6_prefix(0xc0ffee, "shared", 0, prefix);
	assert_memory_equal(prefix, known, sizeof(prefix));
	assert_true(ipv6_prefix_is_local(prefix));
	network_ipv6_prefix(0xc0ffee, "host", 0, other);
	assert_memory_equal(other, prefix, 6);
	assert_memory_not_equal(other + 6, prefix + 6, 2);
	network_ipv6_prefix(0xc0ffee, "shared", 1, other);
	assert_memory_not_equal(other, prefix, sizeof(prefix));
	network_ipv6_prefix(0xc0ffef, "shared", 0, other);
	assert_memory_not_equal(other + 1, prefix + 1, 5);
	gateway = ipv6_prefix_gateway(facts_with_ipv6(NETWORK_MODE_HOST).ipv6_prefix);
	assert_string_equal(inet_ntop(AF_INET6, &gateway, text, sizeof(text)), "fd12:3400:0:7::1");
	other[0] = 0xfc;
	assert_false(ipv6_prefix_is_local(other));
	other[0] = 0x20;
	assert_false(ipv6_prefix_is_local(other));
}

static void names_of_the_host_are_reserved(void **state)
{
	static const char *const names[] = {
		"host", "HOST", "_gateway", "gateway", "wpad", "Isatap", "localhost"};

	for (size_t i = 0; i < array_length(names); i++)
		assert_true(hostname_is_reserved(names[i]));
	assert_false(hostname_is_reserved("hosts"));
	assert_false(hostname_is_reserved(""));
}

static bool has_argument(const struct command *command, const char *argument)
{
	for (size_t i = 0; i < command->count; i++)
		if (strcmp(command->arguments[i], argument) == 0)
			return true;
	return false;
}

static void assert_service(const struct bridge_facts *facts, uint32_t services,
	const char *const *arguments, size_t arguments_count, bool expected)
{
	const struct dnsmasq_options options = {.state_dir = "/state", .runtime_dir = "/run/x"};
	const struct verb_start_dnsmasq wanted = {.services = services, .lease_s = 600};
	cleanup_command struct command command = {0};

	assert_int_equal(
		command_build_dnsmasq(&command, "/usr/sbin/dnsmasq", facts, &wanted, &options), 0);
	assert_string_equal(command.arguments[0], "/usr/sbin/dnsmasq");
	assert_null(command.arguments[command.count]);
	for (size_t i = 0; i < arguments_count; i++)
		if (has_argument(&command, arguments[i]) != expected)
			fail_msg("%s: %s", expected ? "missing" : "not expected", arguments[i]);
}

static void assert_dnsmasq(const struct bridge_facts *facts, const char *const *arguments,
	size_t arguments_count, bool expected)
{
	assert_service(facts, VERB_SERVICE_ALL, arguments, arguments_count, expected);
}

static void dnsmasq_advertises_a_prefix(void **state)
{
	struct bridge_facts facts = facts_with_ipv6(NETWORK_MODE_SHARED);
	char parameters[64];
	const char *const arguments[] = {"--dhcp-range=fd12:3400:0:7::,ra-stateless,ra-names,64",
		"--dhcp-option=option6:dns-server,[fd12:3400:0:7::1]",
		"--rev-server=fd12:3400:0:7::/64", parameters};

	snprintf(parameters, sizeof(parameters), "--ra-param=%s,mtu:1400,600,1800", facts.name);
	assert_dnsmasq(&facts, arguments, array_length(arguments), true);
	assert_service(&facts, VERB_SERVICE_ROUTER_ADVERTISEMENT, arguments, 1, true);
	assert_service(&facts, VERB_SERVICE_ROUTER_ADVERTISEMENT, arguments + 1, 2, false);
	assert_service(&facts, VERB_SERVICE_DHCP | VERB_SERVICE_DNS, arguments, 2, false);
	facts.mode = NETWORK_MODE_HOST;
	snprintf(parameters, sizeof(parameters), "--ra-param=%s,mtu:1400,600,0", facts.name);
	assert_dnsmasq(&facts, arguments, array_length(arguments), true);
}

static void dnsmasq_serves_a_shared_network(void **state)
{
	static const char *const arguments[] = {"--conf-file=/dev/null", "--keep-in-foreground",
		"--bind-interfaces", "--except-interface=lo",
		"--user=", "--group=", "--domain=blue.vmnet", "--local=/blue.vmnet/",
		"--dhcp-range=192.168.64.192,192.168.64.254,255.255.255.0,600s",
		"--dhcp-option-force=option:mtu,1400", "--dhcp-lease-max=256",
		"--dhcp-leasefile=/state/Blue.leases",
		"--dhcp-hostsfile=/run/x/networks/Blue.hosts", "--dhcp-ignore-clid"};
	static const char *const absent[] = {"--no-resolv", "--dhcp-option=option:router"};
	struct bridge_facts facts = facts_of("Blue", NETWORK_MODE_SHARED, "192.168.64.0/24");
	char interface[32];
	const char *interface_argument = interface;

	snprintf(interface, sizeof(interface), "--interface=%s", facts.name);
	assert_dnsmasq(&facts, arguments, array_length(arguments), true);
	assert_dnsmasq(&facts, &interface_argument, 1, true);
	assert_dnsmasq(&facts, absent, array_length(absent), false);
}

static void dnsmasq_tells_a_host_network_no_way_out(void **state)
{
	static const char *const arguments[] = {"--no-resolv", "--dhcp-option=option:router",
		"--dhcp-range=10.0.0.0,static,255.255.255.252,600s", "--dhcp-lease-max=4"};
	struct bridge_facts facts = facts_of("h", NETWORK_MODE_HOST, "10.0.0.0/30");

	assert_dnsmasq(&facts, arguments, array_length(arguments), true);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes_have_texts),
		cmocka_unit_test(tags_are_written_as_documented),
		cmocka_unit_test(tags_come_back_from_their_text),
		cmocka_unit_test(foreign_aliases_are_no_tags),
		cmocka_unit_test(bridge_names_stay_what_they_are),
		cmocka_unit_test(tap_names_and_macs_follow_the_number),
		cmocka_unit_test(our_macs_are_reserved),
		cmocka_unit_test(tables_are_named_by_instance),
		cmocka_unit_test(domains_are_one_label_and_vmnet),
		cmocka_unit_test(pools_leave_out_gateway_and_broadcast),
		cmocka_unit_test(pools_cover_every_size_without_overlap),
		cmocka_unit_test(pools_keep_to_what_was_asked_for),
		cmocka_unit_test(offsets_leave_room_for_a_vm),
		cmocka_unit_test(only_rfc1918_is_private),
		cmocka_unit_test(without_bridges_the_table_goes),
		cmocka_unit_test(a_shared_network_gets_out_and_nobody_in),
		cmocka_unit_test(what_pasta_sends_to_nobody_is_not_answered),
		cmocka_unit_test(an_uplink_is_the_only_way_out),
		cmocka_unit_test(a_host_network_neither_leaves_nor_masquerades),
		cmocka_unit_test(ipv6_leaves_from_its_prefix_only),
		cmocka_unit_test(without_a_prefix_no_ipv6_leaves),
		cmocka_unit_test(prefixes_are_local_stable_and_different),
		cmocka_unit_test(names_of_the_host_are_reserved),
		cmocka_unit_test(dnsmasq_advertises_a_prefix),
		cmocka_unit_test(dnsmasq_serves_a_shared_network),
		cmocka_unit_test(dnsmasq_tells_a_host_network_no_way_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
