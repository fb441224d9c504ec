/* The text of the guard's nft table; pure, so that it can be read and tested without a kernel. */

#include "priv/guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/*
 * The hook comes before that of br_netfilter, with which other firewalls see bridged frames. What
 * is between bridges alone never gets there, but to the hook of the host's own.
 *
 * A frame's first VLAN tag is off the frame here, and meta protocol is what follows it; so rules on
 * IP hold in VLANs, too, where they say meta protocol (without it nftables 1.0.6 compares what
 * stood in front of the tag for some). A second tag behind an empty first one would hide a frame
 * from them, and kernels take off both.
 *
 * DHCP clients look at the port they listen on, some at nothing else; so what goes there is as
 * rogue as what comes from a server's port (RFC 2131 4.1, RFC 8415 7.2).
 */
static const char shape[] =
	"set gateways { type ipv4_addr; }\n"
	"set gateways6 { type ipv6_addr; }\n"
	"set macs { type ifname . ether_addr; }\n"
	"set addresses { type ifname . ether_addr . ipv4_addr; }\n"
	"set clients { typeof iifname . @th,288,48; }\n"
	"map isolated_ports { type ifname : verdict; }\n"
	"map locked_ports { type ifname : verdict; }\n"
	"chain advertisements {\n}\n"
	"chain between_bridges {\n"
	"ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop\n"
	"}\n"
	"chain vm_arp {\n"
	"meta protocol arp arp saddr ip @gateways drop\n"
	"}\n"
	"chain vm_ip {\n"
	"ip saddr @gateways drop\n"
	"meta l4proto udp udp sport 67 drop\n"
	"meta l4proto udp udp dport 68 drop\n"
	"meta protocol ip icmp type redirect drop\n"
	"}\n"
	"chain vm_ip6 {\n"
	"ip6 saddr @gateways6 drop\n"
	"meta l4proto udp udp sport 547 drop\n"
	"meta l4proto udp udp dport 546 drop\n"
	"meta protocol ip6 icmpv6 type vmap { nd-router-advert : drop, nd-redirect : drop,"
	" nd-neighbor-advert : jump advertisements }\n"
	"}\n"
	"chain vm_tags {\n"
	"@ll,112,16 & 0x0fff == 0 drop\n"
	"}\n"
	"chain locked_arp {\n"
	"arp htype != 1 drop\n"
	"arp ptype != ip drop\n"
	"arp hlen != 6 drop\n"
	"arp plen != 4 drop\n"
	"arp operation { request, reply } iifname . arp saddr ether . arp saddr ip @addresses"
	" return\n"
	/* Whoever looks whether an address is free has none yet (RFC 5227 2.1.1). */
	"arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs return\n"
	"drop\n"
	"}\n"
	/* In DHCP a client is who its message says (chaddr, RFC 2131 2), which nftables has no word
	   for. A fragment without it is none. */
	"chain locked_dhcp {\n"
	"ip saddr 0.0.0.0 udp sport 68 iifname . @th,288,48 @clients return\n"
	"iifname . ether saddr . ip saddr @addresses iifname . @th,288,48 @clients return\n"
	"drop\n"
	"}\n"
	"chain locked_ip {\n"
	"meta l4proto udp udp dport 67 goto locked_dhcp\n"
	"iifname . ether saddr . ip saddr @addresses return\n"
	"drop\n"
	"}\n"
	"chain locked {\n"
	"iifname . ether saddr != @macs drop\n"
	"ether type vmap { ip : goto locked_ip, arp : goto locked_arp, ip6 : return }\n"
	"drop\n"
	"}\n"
	"chain vm {\n"
	"jump between_bridges\n"
	"ether saddr & ff:ff:00:00:00:00 == { fe:76:00:00:00:00, fe:77:00:00:00:00 } drop\n"
	"meta protocol vmap { ip : jump vm_ip, ip6 : jump vm_ip6, arp : jump vm_arp,"
	" 8021q : jump vm_tags, 8021ad : jump vm_tags }\n"
	"iifname vmap @isolated_ports\n"
	"iifname vmap @locked_ports\n"
	"}\n"
	"chain prerouting {\n"
	"type filter hook prerouting priority -310; policy accept;\n"
	"iifname \"" TAP_INTERFACE_NAMES "\" jump vm\n"
	"}\n"
	"chain input {\n"
	"type filter hook input priority -310; policy accept;\n"
	"iifname \"" TAP_INTERFACE_NAMES "\" jump between_bridges\n"
	"}\n";

/* What an interface makes of its MAC (RFC 4291 2.5.6, appendix A). */
static struct in6_addr link_local_address(struct mac mac)
{
	const uint8_t *m = mac.bytes;

	return (struct in6_addr){.s6_addr = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2],
					 0xff, 0xfe, m[3], m[4], m[5]}};
}

static void write_gateway6(FILE *out, const char *table, const struct in6_addr *address)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, address, text, sizeof(text));
	fprintf(out, "add element bridge %s gateways6 { %s }\n", table, text);
	/* The target of an advertisement (RFC 4861 4.4), for which nftables 1.0.6 has no word. */
	fprintf(out, "add rule bridge %s advertisements @th,64,128 0x", table);
	for (size_t i = 0; i < sizeof(address->s6_addr); i++)
		fprintf(out, "%02x", address->s6_addr[i]);
	fputs(" drop\n", out);
}

static void prefix_to_text(const struct bridge_facts *bridge, char text[INET6_ADDRSTRLEN])
{
	struct in6_addr prefix = {0};

	memcpy(&prefix, bridge->ipv6_prefix, IPV6_PREFIX_SIZE);
	inet_ntop(AF_INET6, &prefix, text, INET6_ADDRSTRLEN);
}

/*
 * The host forwards between VMs of one network, as it does for any two neighbours of its own. Its
 * MACs are those of the bridge and of its ports.
 */
static void write_isolated_chain(FILE *out, const char *table, const struct bridge_facts *bridge)
{
	static const char to_the_host[] = "ether daddr & ff:ff:00:00:00:00 =="
					  " { fe:76:00:00:00:00, fe:77:00:00:00:00 }";
	struct in_addr gateway = ipv4_subnet_host(bridge->subnet, bridge->gateway_offset);
	struct in6_addr gateway6 = ipv6_prefix_gateway(bridge->ipv6_prefix);
	char text[INET6_ADDRSTRLEN];
	char subnet[INET6_ADDRSTRLEN];

	fprintf(out, "create chain bridge %s isolated_%s\n", table, bridge->name);
	inet_ntop(AF_INET, &gateway, text, sizeof(text));
	ipv4_subnet_to_text(bridge->subnet, subnet);
	fprintf(out, "add rule bridge %s isolated_%s %s ip daddr %s ip daddr != %s drop\n", table,
		bridge->name, to_the_host, subnet, text);
	if (!bridge->has_ipv6)
		return;
	inet_ntop(AF_INET6, &gateway6, text, sizeof(text));
	prefix_to_text(bridge, subnet);
	fprintf(out, "add rule bridge %s isolated_%s %s ip6 daddr %s/64 ip6 daddr != %s drop\n",
		table, bridge->name, to_the_host, subnet, text);
}

/* A VM makes its IPv6 addresses itself (RFC 4862, RFC 8981): all that is known is their prefix. */
static void write_locked_chain(FILE *out, const char *table, const struct bridge_facts *bridge)
{
	char prefix[INET6_ADDRSTRLEN];

	prefix_to_text(bridge, prefix);
	fprintf(out, "create chain bridge %s locked_%s\n", table, bridge->name);
	fprintf(out, "add rule bridge %s locked_%s ip6 saddr != { ::, fe80::/10%s%s%s } drop\n",
		table, bridge->name, bridge->has_ipv6 ? ", " : "", bridge->has_ipv6 ? prefix : "",
		bridge->has_ipv6 ? "/64" : "");
	fprintf(out, "add rule bridge %s locked_%s goto locked\n", table, bridge->name);
}

static void write_bridge(
	FILE *out, const char *table, uint32_t instance, const struct bridge_facts *bridge)
{
	struct in_addr gateway = ipv4_subnet_host(bridge->subnet, bridge->gateway_offset);
	struct in6_addr local = link_local_address(bridge_mac(instance, bridge->network));
	struct in6_addr gateway6 = ipv6_prefix_gateway(bridge->ipv6_prefix);
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &gateway, text, sizeof(text));
	fprintf(out, "add element bridge %s gateways { %s }\n", table, text);
	write_gateway6(out, table, &local);
	if (bridge->has_ipv6)
		write_gateway6(out, table, &gateway6);
	write_isolated_chain(out, table, bridge);
	write_locked_chain(out, table, bridge);
}

static void write_tap(FILE *out, const char *table, const char *bridge, const struct tap_facts *tap)
{
	char mac[MAC_TEXT_SIZE];
	char address[INET_ADDRSTRLEN];

	if (tap->port.isolated)
		fprintf(out, "add element bridge %s isolated_ports { \"%s\" : jump isolated_%s }\n",
			table, tap->name, bridge);
	if (!tap->port.locked)
		return;
	mac_to_text(tap->port.mac, mac);
	inet_ntop(AF_INET, &tap->port.address, address, sizeof(address));
	fprintf(out, "add element bridge %s macs { \"%s\" . %s }\n", table, tap->name, mac);
	fprintf(out, "add element bridge %s clients { \"%s\" . 0x", table, tap->name);
	for (size_t i = 0; i < sizeof(tap->port.mac.bytes); i++)
		fprintf(out, "%02x", tap->port.mac.bytes[i]);
	fputs(" }\n", out);
	fprintf(out, "add element bridge %s addresses { \"%s\" . %s . %s }\n", table, tap->name,
		mac, address);
	fprintf(out, "add element bridge %s locked_ports { \"%s\" : goto locked_%s }\n", table,
		tap->name, bridge);
}

static bool has_bridge(const struct guard_facts *facts, const char *network)
{
	for (size_t i = 0; i < facts->bridges_count; i++)
		if (strcmp(facts->bridges[i].network, network) == 0)
			return true;
	return false;
}

static void write_additions(
	FILE *out, const char *table, const struct guard_facts *facts, bool is_whole)
{
	for (size_t i = 0; i < facts->bridges_count; i++)
		write_bridge(out, table, facts->instance, &facts->bridges[i]);
	for (size_t i = 0; i < facts->taps_count; i++) {
		char bridge[IFNAMSIZ];

		/* The TAP of a bridge that somebody removed: it reaches nobody. */
		if (is_whole && !has_bridge(facts, facts->taps[i].network))
			continue;
		bridge_interface_name(facts->instance, facts->taps[i].network, bridge);
		write_tap(out, table, bridge, &facts->taps[i]);
	}
}

static char *build(const struct guard_facts *facts, bool is_whole)
{
	char table[GUARD_TABLE_SIZE];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	guard_table_name(facts->instance, table);
	/* Adding first makes the deletion work where there is none. */
	if (is_whole)
		fprintf(out, "add table bridge %s\ndelete table bridge %s\n", table, table);
	if (is_whole && facts->bridges_count + facts->taps_count > 0)
		fprintf(out, "table bridge %s {\n%s}\n", table, shape);
	write_additions(out, table, facts, is_whole);
	return text_take_stream(out, &text);
}

char *guard_build_commands(const struct guard_facts *facts)
{
	return build(facts, true);
}

char *guard_build_additions(const struct guard_facts *facts)
{
	return build(facts, false);
}
