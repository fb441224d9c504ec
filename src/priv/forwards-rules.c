/* The table of forwards: what may be in it, and its text. Pure, so that it can be read and tested
 * without a kernel. */

#include "priv/forwards.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PORT_DNS    53
#define PORT_DHCP   67
#define PORT_DHCPV6 547

static const uint8_t every_address[16];

static bool is_every_address(const struct verb_forward *forward)
{
	return memcmp(forward->listen, every_address, sizeof(every_address)) == 0;
}

static bool is_form_valid(const struct verb_forward *forward)
{
	if (forward->is_ipv6 > 1 ||
		(forward->protocol != IPPROTO_TCP && forward->protocol != IPPROTO_UDP))
		return false;
	if (forward->listen_port == 0 || forward->target_port == 0)
		return false;
	return forward->is_ipv6 ||
	       (memcmp(forward->listen + 4, every_address, sizeof(every_address) - 4) == 0 &&
		       memcmp(forward->target + 4, every_address, sizeof(every_address) - 4) == 0);
}

static bool have_same_key(const struct verb_forward *a, const struct verb_forward *b)
{
	return a->is_ipv6 == b->is_ipv6 && a->protocol == b->protocol &&
	       a->listen_port == b->listen_port &&
	       memcmp(a->listen, b->listen, sizeof(a->listen)) == 0;
}

int forwards_check(
	const struct verb_forward *forwards, size_t forwards_count, struct verb_outcome *outcome)
{
	for (size_t i = 0; i < forwards_count; i++) {
		if (!is_form_valid(&forwards[i]))
			return outcome_fail(outcome, -EINVAL, "forward %zu is malformed", i);
		for (size_t j = 0; j < i; j++)
			if (have_same_key(&forwards[i], &forwards[j]))
				return outcome_fail(outcome, -EINVAL,
					"forwards %zu and %zu have the same port %u", j, i,
					forwards[i].listen_port);
	}
	return 0;
}

static struct in_addr get_ipv4(const uint8_t *bytes)
{
	struct in_addr address;

	memcpy(&address, bytes, sizeof(address));
	return address;
}

static struct in_addr get_gateway(const struct bridge_facts *bridge)
{
	return ipv4_subnet_host(bridge->subnet, bridge->gateway_offset);
}

/* Neither the subnet itself nor its broadcast address nor the host's own. */
static bool is_host_on(const struct bridge_facts *bridge, struct in_addr address)
{
	uint32_t offset = ntohl(address.s_addr) - ntohl(bridge->subnet.address.s_addr);

	return ipv4_subnet_contains(bridge->subnet, address) && offset != 0 &&
	       offset != ipv4_subnet_size(bridge->subnet) - 1 &&
	       address.s_addr != get_gateway(bridge).s_addr;
}

/* Neither the prefix itself nor the host's own address. */
static bool is_ipv6_host_on(const struct bridge_facts *bridge, const uint8_t *address)
{
	struct in6_addr gateway = ipv6_prefix_gateway(bridge->ipv6_prefix);

	return bridge->has_ipv6 && memcmp(address, bridge->ipv6_prefix, IPV6_PREFIX_SIZE) == 0 &&
	       memcmp(address + IPV6_PREFIX_SIZE, every_address,
		       sizeof(gateway) - IPV6_PREFIX_SIZE) != 0 &&
	       memcmp(address, &gateway, sizeof(gateway)) != 0;
}

static bool leads_to(const struct verb_forward *forward, const struct bridge_facts *bridge)
{
	return forward->is_ipv6 ? is_ipv6_host_on(bridge, forward->target)
				: is_host_on(bridge, get_ipv4(forward->target));
}

static bool listens_at_gateway(
	const struct verb_forward *forward, const struct bridge_facts *bridge)
{
	struct in6_addr gateway = ipv6_prefix_gateway(bridge->ipv6_prefix);

	if (forward->is_ipv6)
		return bridge->has_ipv6 && memcmp(forward->listen, &gateway, sizeof(gateway)) == 0;
	return get_ipv4(forward->listen).s_addr == get_gateway(bridge).s_addr;
}

const struct bridge_facts *forwards_find_bridge(const struct verb_forward *forward,
	const struct bridge_facts *bridges, size_t bridges_count)
{
	for (size_t i = 0; i < bridges_count; i++)
		if (leads_to(forward, &bridges[i]))
			return &bridges[i];
	return NULL;
}

bool forwards_takes_loopback(const struct verb_forward *forward)
{
	return !forward->is_ipv6 && (is_every_address(forward) || forward->listen[0] == 127);
}

static bool is_service_port(const struct verb_forward *forward)
{
	if (forward->listen_port == PORT_DNS)
		return true;
	return forward->protocol == IPPROTO_UDP &&
	       forward->listen_port == (forward->is_ipv6 ? PORT_DHCPV6 : PORT_DHCP);
}

bool forwards_takes_service(const struct verb_forward *forward, const struct bridge_facts *bridges,
	size_t bridges_count)
{
	if (!is_service_port(forward))
		return false;
	if (is_every_address(forward))
		return true;
	for (size_t i = 0; i < bridges_count; i++)
		if (listens_at_gateway(forward, &bridges[i]))
			return true;
	return false;
}

/* One map: forwards of one family that listen on every address, or each on its own. */
struct map {
	const char *name;
	const char *type;
	bool is_ipv6;
	bool every_address;
};

static const struct map maps[] = {
	{"at4", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service", false, false},
	{"every4", "inet_proto . inet_service : ipv4_addr . inet_service", false, true},
	{"at6", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service", true, false},
	{"every6", "inet_proto . inet_service : ipv6_addr . inet_service", true, true},
};

static void write_element(FILE *out, const struct verb_forward *forward)
{
	int family = forward->is_ipv6 ? AF_INET6 : AF_INET;
	char listen[INET6_ADDRSTRLEN], target[INET6_ADDRSTRLEN];

	inet_ntop(family, forward->listen, listen, sizeof(listen));
	inet_ntop(family, forward->target, target, sizeof(target));
	if (!is_every_address(forward))
		fprintf(out, "%s . ", listen);
	fprintf(out, "%u . %u : %s . %u", forward->protocol, forward->listen_port, target,
		forward->target_port);
}

static void write_map(FILE *out, const struct map *map, const struct verb_forward *forwards,
	size_t forwards_count)
{
	const char *before = "elements = { ";

	fprintf(out, "map %s {\ntype %s\n", map->name, map->type);
	for (size_t i = 0; i < forwards_count; i++) {
		if (forwards[i].is_ipv6 != map->is_ipv6 ||
			is_every_address(&forwards[i]) != map->every_address)
			continue;
		fputs(before, out);
		write_element(out, &forwards[i]);
		before = ",\n";
	}
	fputs(*before == ',' ? " }\n}\n" : "}\n", out);
}

/*
 * A bridge with route_localnet takes 127.0.0.0/8 for addresses like any other, so VMs would reach
 * what listens on the host's loopback alone, or speak in its name.
 */
static void write_guard(FILE *out, const struct bridge_facts *bridges, size_t bridges_count)
{
	fputs("chain guard {\ntype filter hook prerouting priority raw; policy accept;\n", out);
	for (size_t i = 0; i < bridges_count; i++)
		fprintf(out,
			"iifname \"%s\" ip saddr 127.0.0.0/8 drop\n"
			"iifname \"%s\" ip daddr 127.0.0.0/8 drop\n",
			bridges[i].name, bridges[i].name);
	fputs("}\n", out);
}

/*
 * Only packets for the host itself: what merely passes it by is not ours to take. A packet for
 * 127.0.0.1 that comes from outside would be dropped after this hook, and must not be made a good
 * one before. Nothing leads from ::1 to another link.
 */
static const char destination_rules[] = "chain publish {\n"
					"dnat ip to ip daddr . meta l4proto . th dport map @at4\n"
					"dnat ip to meta l4proto . th dport map @every4\n"
					"dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6\n"
					"dnat ip6 to meta l4proto . th dport map @every6\n"
					"}\n"
					"chain prerouting {\n"
					"type nat hook prerouting priority dstnat; policy accept;\n"
					"ip daddr 127.0.0.0/8 return\n"
					"ip6 daddr ::1 return\n"
					"fib daddr type local goto publish\n"
					"}\n"
					"chain output {\n"
					"type nat hook output priority -100; policy accept;\n"
					"ip6 daddr ::1 return\n"
					"fib daddr type local goto publish\n"
					"}\n";

/*
 * Where a VM's answer would miss the host, its peer must seem to be the gateway: neighbours answer
 * each other directly, 127.0.0.1 is the VM itself to the VM, and on a network without a router it
 * can answer nobody else.
 */
static void write_source_rules(FILE *out, const struct bridge_facts *bridge)
{
	char subnet[SUBNET_TEXT_SIZE];
	char prefix_text[INET6_ADDRSTRLEN];
	struct in6_addr prefix = {0};

	if (bridge->mode != NETWORK_MODE_SHARED) {
		fprintf(out, "oifname \"%s\" ct status dnat masquerade\n", bridge->name);
		return;
	}
	ipv4_subnet_to_text(bridge->subnet, subnet);
	fprintf(out, "oifname \"%s\" ct status dnat ip saddr { 127.0.0.0/8, %s } masquerade\n",
		bridge->name, subnet);
	if (!bridge->has_ipv6)
		return;
	memcpy(&prefix, bridge->ipv6_prefix, IPV6_PREFIX_SIZE);
	inet_ntop(AF_INET6, &prefix, prefix_text, sizeof(prefix_text));
	fprintf(out, "oifname \"%s\" ct status dnat ip6 saddr %s/64 masquerade\n", bridge->name,
		prefix_text);
}

static void write_table(FILE *out, const char *table, const struct verb_forward *forwards,
	size_t forwards_count, const struct bridge_facts *bridges, size_t bridges_count)
{
	/* Adding first makes the deletion work where there is none. */
	fprintf(out, "add table inet %s\ndelete table inet %s\n", table, table);
	if (forwards_count == 0)
		return;
	fprintf(out, "table inet %s {\n", table);
	for (size_t i = 0; i < array_length(maps); i++)
		write_map(out, &maps[i], forwards, forwards_count);
	write_guard(out, bridges, bridges_count);
	fputs(destination_rules, out);
	/* Before the masquerading of the other table: the first one that fits is taken. */
	fputs("chain postrouting {\n"
	      "type nat hook postrouting priority srcnat - 1; policy accept;\n",
		out);
	for (size_t i = 0; i < bridges_count; i++)
		write_source_rules(out, &bridges[i]);
	fputs("}\n}\n", out);
}

char *forwards_build_commands(uint32_t instance, const struct verb_forward *forwards,
	size_t forwards_count, const struct bridge_facts *bridges, size_t bridges_count)
{
	char table[FORWARDS_TABLE_SIZE];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	forwards_table_name(instance, table);
	write_table(out, table, forwards, forwards_count, bridges, bridges_count);
	return text_take_stream(out, &text);
}
