/*
 * The one line of JSON that vmnet-helper and vmnet-client print when a VM may be started: the
 * original helper's keys, and ours. Pure.
 */
#pragma once

#include "base/text.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* Texts stay the caller's. */
struct startline {
	const char *network;        /* name */
	const char *interface_name; /* the host's end */
	bool network_was_named;     /* by --network: the original prints other keys then */
	struct mac mac;
	struct uuid interface_id;
	struct in_addr address;    /* the IPv4 reserved for the MAC; zero: none */
	struct ipv4_subnet subnet; /* prefix length 0: none of ours, as of mode bridged */
	struct in_addr gateway;
	struct in_addr
		end_address; /* last address of the DHCP pool; zero: the subnet's last host */
	bool is_shared;      /* the network's mode: there is NAT */
	bool has_ipv6;
	struct in6_addr ipv6_prefix; /* a /64 */
	uint32_t mtu;
	uint32_t max_packet_size; /* bytes of the longest frame; zero: mtu and an Ethernet header */
	uint32_t read_max_packets; /* frames of one batch */
	uint32_t write_max_packets;
};

/*
 * The line with its newline, to be freed. -EINVAL when a text is no UTF-8, -ENOMEM.
 */
int startline_to_text(const struct startline *line, char **ret_text);
