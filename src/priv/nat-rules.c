/* The text of the nft table; pure, so that it can be read and tested without a kernel. */

#include "priv/nat.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/*
 * A VM knows the MTU of its own network only. So both sides of a TCP connection are told the
 * largest segment that fits through both of the host's interfaces (nft(8), rt mtu), which the
 * kernel only ever makes smaller (nft_exthdr.c): a server behind a router that keeps its ICMP to
 * itself answers VMs as it answers the host.
 */
static void write_segment_rules(FILE *out, const char *bridge)
{
	static const char *const directions[] = {"iifname", "oifname"};

	for (size_t i = 0; i < array_length(directions); i++)
		fprintf(out,
			"%s \"%s\" tcp flags & (syn | rst) == syn"
			" tcp option maxseg size set rt mtu\n",
			directions[i], bridge);
}

/*
 * A frame between two ports of one bridge is no business of ours, but br_netfilter shows it to this
 * hook; so that case comes first.
 */
static void write_bridged_rules(FILE *out, const struct bridge_facts *bridge)
{
	fprintf(out, "iifname \"%s\" oifname \"%s\" accept\n", bridge->name, bridge->name);
}

/* Where a port of the host leads to a VM, from whatever side: both ways, for all networks before
 * the rules of the first. */
static void write_published_rules(FILE *out, const struct bridge_facts *bridge)
{
	write_segment_rules(out, bridge->name);
	fprintf(out, "oifname \"%s\" ct direction original ct status dnat accept\n", bridge->name);
	fprintf(out, "iifname \"%s\" ct direction reply ct status dnat accept\n", bridge->name);
}

static void prefix_to_text(const struct bridge_facts *bridge, char text[INET6_ADDRSTRLEN])
{
	struct in6_addr prefix = {0};

	memcpy(&prefix, bridge->ipv6_prefix, IPV6_PREFIX_SIZE);
	inet_ntop(AF_INET6, &prefix, text, INET6_ADDRSTRLEN);
}

/*
 * Nobody forwards what is link-local (RFC 4291 2.5.6), so that as a source the prefix is all there
 * is. IPv4 in IPv6, and no address at all, are on no wire (2.5.2, 2.5.5): where sockets send on, as
 * pasta's do, they would be the host's loopback.
 */
static void write_ipv6_rules(FILE *out, const struct bridge_facts *bridge)
{
	char prefix[INET6_ADDRSTRLEN];

	prefix_to_text(bridge, prefix);
	if (bridge->has_ipv6)
		fprintf(out,
			"iifname \"%s\" ip6 saddr != %s/64 drop\n"
			"iifname \"%s\" ip6 daddr { ::/96, ::ffff:0:0/96 } drop\n",
			bridge->name, prefix, bridge->name);
	else
		fprintf(out, "iifname \"%s\" meta nfproto ipv6 drop\n", bridge->name);
}

static void write_forward_rules(FILE *out, const struct bridge_facts *bridge)
{
	char subnet[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(bridge->subnet, subnet);
	if (bridge->mode == NETWORK_MODE_SHARED) {
		fprintf(out, "iifname \"%s\" ip saddr != %s drop\n", bridge->name, subnet);
		/* Nothing would translate its source, to which pasta would send everybody's
		 * answers. */
		fprintf(out, "iifname \"%s\" ct state invalid drop\n", bridge->name);
		write_ipv6_rules(out, bridge);
		if (*bridge->uplink)
			fprintf(out, "iifname \"%s\" oifname != \"%s\" drop\n", bridge->name,
				bridge->uplink);
		fprintf(out, "oifname \"%s\" ct state established,related accept\n", bridge->name);
	} else {
		fprintf(out, "iifname \"%s\" drop\n", bridge->name);
	}
	fprintf(out, "oifname \"%s\" drop\n", bridge->name);
}

/* The port range keeps a guest's connections out of the ports that servers trust. */
static void write_masquerade_rules(FILE *out, const struct bridge_facts *bridge)
{
	static const char *const actions[] = {
		"meta l4proto { tcp, udp } masquerade to :1024-65535",
		"masquerade",
	};
	char subnet[SUBNET_TEXT_SIZE];
	char prefix[INET6_ADDRSTRLEN];

	if (bridge->mode != NETWORK_MODE_SHARED)
		return;
	ipv4_subnet_to_text(bridge->subnet, subnet);
	prefix_to_text(bridge, prefix);
	for (size_t i = 0; i < array_length(actions); i++) {
		fprintf(out,
			"oifname != \"%s\" ip saddr %s"
			" ip daddr != { 224.0.0.0/24, 255.255.255.255 } %s\n",
			bridge->name, subnet, actions[i]);
		if (bridge->has_ipv6)
			fprintf(out, "oifname != \"%s\" ip6 saddr %s/64 ip6 daddr != ff00::/8 %s\n",
				bridge->name, prefix, actions[i]);
	}
}

/*
 * What belongs to no connection is no VM's either, so that the kernel would answer it itself, with
 * a reset that ends the connection it was meant for. pasta of 2023 sends such segments, without any
 * flag, in connections to whoever is more than 10 us away; VMs would pass over them.
 */
static void write_pasta_rules(FILE *out, const struct bridge_facts *bridges, size_t bridges_count)
{
	fputs("chain input {\ntype filter hook input priority filter; policy accept;\n", out);
	fputs("iifname != { \"lo\"", out);
	for (size_t i = 0; i < bridges_count; i++)
		fprintf(out, ", \"%s\"", bridges[i].name);
	fputs(" } ct state invalid drop\n}\n", out);
}

static void write_table(FILE *out, const char *table, bool is_rootless,
	const struct bridge_facts *bridges, size_t bridges_count)
{
	/* Adding first makes the deletion work where there is none. */
	fprintf(out, "add table inet %s\ndelete table inet %s\n", table, table);
	if (bridges_count == 0)
		return;
	fprintf(out, "table inet %s {\nchain forward {\n", table);
	fputs("type filter hook forward priority filter; policy accept;\n", out);
	for (size_t i = 0; i < bridges_count; i++)
		write_bridged_rules(out, &bridges[i]);
	for (size_t i = 0; i < bridges_count; i++)
		write_published_rules(out, &bridges[i]);
	for (size_t i = 0; i < bridges_count; i++)
		write_forward_rules(out, &bridges[i]);
	fputs("}\nchain postrouting {\n", out);
	fputs("type nat hook postrouting priority srcnat; policy accept;\n", out);
	for (size_t i = 0; i < bridges_count; i++)
		write_masquerade_rules(out, &bridges[i]);
	fputs("}\n", out);
	if (is_rootless)
		write_pasta_rules(out, bridges, bridges_count);
	fputs("}\n", out);
}

char *nat_build_commands(uint32_t instance, bool is_rootless, const struct bridge_facts *bridges,
	size_t bridges_count)
{
	char table[NAT_TABLE_SIZE];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	nat_table_name(instance, table);
	write_table(out, table, is_rootless, bridges, bridges_count);
	return text_take_stream(out, &text);
}
