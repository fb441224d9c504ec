/*
 * Names, tags and addresses of the kernel objects that are ours. Pure code; front and priv both use
 * it, so that neither has to believe the other.
 *
 * A link is ours when its alias (IFLA_IFALIAS) says so:
 *     vmnet/1/INSTANCE/bridge/MODE/NETWORK      a network's bridge; MODE,UPLINK: out by it only
 *     vmnet/1/INSTANCE/tap/PORT/NETWORK         a VM's TAP
 *     vmnet/1/INSTANCE/macvtap/-/NETWORK        a VM's macvtap link, of a network of mode bridged
 * 1 is the version of this format, INSTANCE 8 hexadecimal digits that a broker keeps in its state
 * directory. PORT is how the TAP's port is kept, so that the rules for it can be made again from
 * the links alone: "-", or some of "isolated", "named,UID" (a persistent TAP that UID may open by
 * its name) and "lock,MAC,IPV4", in this order, with a comma between.
 */
#pragma once

#include "base/text.h"

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define LINK_TAG_SIZE       128
#define LINK_ALTNAME_SIZE   64
#define LINK_OWNER_MAX      (UINT32_MAX - 1) /* the last uid; behind it is chown(2)'s "none" */
#define NAT_TABLE_SIZE      32
#define FORWARDS_TABLE_SIZE 32
#define GUARD_TABLE_SIZE    32
#define NETWORK_DOMAIN_SIZE (NETWORK_NAME_SIZE + 8)
#define IPV6_PREFIX_SIZE    8 /* bytes: every network has a /64 */

enum network_mode {
	NETWORK_MODE_SHARED,  /* NAT out */
	NETWORK_MODE_HOST,    /* host and VMs only: no router, no NAT */
	NETWORK_MODE_BRIDGED, /* VMs on an interface of the host: no bridge of ours */
	NETWORK_MODE_COUNT,
};

enum link_kind {
	LINK_KIND_BRIDGE,
	LINK_KIND_TAP,
	LINK_KIND_MACVTAP,
	LINK_KIND_COUNT,
};

/* How a TAP's port on its bridge is kept. */
struct link_port {
	bool isolated;          /* reaches the host and ports that are not isolated */
	bool named;             /* its TAP is persistent, and owner's to open by its name */
	uint32_t owner;         /* of named: a uid */
	bool locked;            /* sends from mac and address only */
	struct mac mac;         /* of locked */
	struct in_addr address; /* of locked */
};

struct link_tag {
	uint32_t instance;
	enum link_kind kind;
	enum network_mode mode; /* of a bridge; a TAP's is NETWORK_MODE_SHARED and means nothing */
	char network[NETWORK_NAME_SIZE];
	struct link_port port; /* of a TAP */
	char uplink[IFNAMSIZ]; /* of a bridge: its only link to the world; empty for any */
};

/* "shared", "host" or "bridged"; static storage. */
const char *network_mode_to_text(enum network_mode mode);

/* "shared", "host" or "bridged"; -EINVAL otherwise. */
int network_mode_from_text(const char *text, enum network_mode *ret_mode);

/*
 * A link's name that is safe in our tags and in the text of nft rules, where "*" is every name:
 * letters, digits and ._@+-, of what the kernel takes (dev_valid_name() in net/core/dev.c).
 */
bool uplink_name_is_valid(const char *name);

/* Writes the alias into text (LINK_TAG_SIZE bytes). */
void link_tag_to_text(const struct link_tag *tag, char *text);

/* -EINVAL for an alias that is not exactly of our form and version. */
int link_tag_from_text(const char *text, struct link_tag *ret_tag);

/* The bridge of a network, "vmbrXXXXXXXX": a hash of instance and name, so that no index is ever
 * reused. */
void bridge_interface_name(uint32_t instance, const char *network, char name[IFNAMSIZ]);

/* A second, readable name of the bridge, "vmnet-NETWORK". */
void bridge_altname(const char *network, char altname[LINK_ALTNAME_SIZE]);

/* fe:77 and the four bytes of the bridge's name: the gateway keeps its MAC over restarts. */
struct mac bridge_mac(uint32_t instance, const char *network);

/*
 * The first half of a network's IPv6 /64: fd, 40 bits that follow from the instance, 16 that follow
 * from the name (RFC 4193 3.2), and attempt added to them, for the case that two names meet.
 */
void network_ipv6_prefix(
	uint32_t instance, const char *network, uint32_t attempt, uint8_t prefix[IPV6_PREFIX_SIZE]);

/* In fd00::/8, which everybody may give out himself (RFC 4193 3.1). */
bool ipv6_prefix_is_local(const uint8_t prefix[IPV6_PREFIX_SIZE]);

/* The host's own address on it, PREFIX::1. */
struct in6_addr ipv6_prefix_gateway(const uint8_t prefix[IPV6_PREFIX_SIZE]);

/* A TAP, "vmtapXXXXXXXX": the front picks number at random among the free ones. */
#define TAP_INTERFACE_NAMES "vmtap*" /* all of them, in nftables' words */
void tap_interface_name(uint32_t number, char name[IFNAMSIZ]);

/* Its readable name, "vmnet-NETWORK-XXXXXXXX". */
void tap_altname(const char *network, uint32_t number, char altname[LINK_ALTNAME_SIZE]);

/* fe:76 and the four bytes of number: the host's end; it is never the VM's MAC. */
struct mac tap_mac(uint32_t number);

/* True for fe:76 and fe:77, which no VM may have. */
bool mac_is_reserved(struct mac mac);

/* The nft table of family bridge with the rules for what VMs send, "vmnet_guard_INSTANCE". */
void guard_table_name(uint32_t instance, char name[GUARD_TABLE_SIZE]);

/* Our nft table of NAT and filters, "vmnet_INSTANCE". */
void nat_table_name(uint32_t instance, char name[NAT_TABLE_SIZE]);

/* Our nft table of forwards, "vmnet_forwards_INSTANCE". */
void forwards_table_name(uint32_t instance, char name[FORWARDS_TABLE_SIZE]);

/*
 * Names that lead to the host, or that programs trust in any network they are in: no VM may have
 * one ("wpad": VU#598349, "isatap": RFC 5214 8.3.3, "localhost": RFC 6761 6.3). Number index of
 * them, static storage; NULL behind the last.
 */
const char *hostname_get_reserved(size_t index);

/* Whether it is one of them; case says nothing. */
bool hostname_is_reserved(const char *hostname);

/*
 * The DNS domain of a network, "NETWORK.vmnet" in lower case (RFC 4343: case says nothing). What a
 * name may have and one DNS label may not becomes '-' (dots and underscores) or is left out
 * (hyphens at the end).
 */
void network_domain(const char *network, char domain[NETWORK_DOMAIN_SIZE]);
