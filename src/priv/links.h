/*
 * Bridges and TAPs in the kernel: made, found by tag, removed. Facts about networks are always read
 * back from here; nothing is remembered.
 */
#pragma once

#include "base/cleanup.h"
#include "base/text.h"
#include "priv/names.h"
#include "priv/outcome.h"

#include <stdbool.h>
#include <stdint.h>

/* A network as the kernel shows it. */
struct bridge_facts {
	char network[NETWORK_NAME_SIZE];
	char name[IFNAMSIZ];
	uint32_t index;
	enum network_mode mode;
	struct ipv4_subnet subnet;
	uint32_t gateway_offset; /* the host's own address, from the subnet's */
	bool has_ipv6;
	uint8_t ipv6_prefix[IPV6_PREFIX_SIZE]; /* the first half of a /64 */
	uint32_t mtu;                          /* bytes */
	char uplink[IFNAMSIZ];                 /* its only link to the world; empty: any */
};

/* What a new bridge shall be; checked by the caller. */
struct bridge_wish {
	const char *network;
	enum network_mode mode;
	struct ipv4_subnet subnet;
	uint32_t gateway_offset;
	bool has_ipv6;
	uint8_t ipv6_prefix[IPV6_PREFIX_SIZE]; /* the first half of a /64 */
	uint32_t mtu;                          /* bytes */
	const char *uplink;                    /* empty: any */
};

/* What a new TAP shall be; checked by the caller. */
struct tap_wish {
	const char *network;
	const char *uplink; /* empty: the network's own bridge */
	uint32_t number;
	uint32_t queues;
	struct link_port port;
	struct mac mac; /* the VM's, of a macvtap link */
};

/* A TAP as the kernel shows it. */
struct tap_facts {
	char name[IFNAMSIZ];
	uint32_t index;
	char network[NETWORK_NAME_SIZE];
	uint32_t mtu; /* bytes */
	struct link_port port;
};

struct links;

/*
 * A netlink socket to the namespace's links, for the links of one instance. runtime_directory,
 * which must outlive it, is where notes about the host are kept. Negative errno.
 */
int links_open(uint32_t instance, const char *runtime_directory, struct links **ret_links);

/* Accepts NULL. Leaves every link as it is. */
void links_close(struct links *links);
DEFINE_CLEANUP(struct links, links_close)

/* The instance it was opened for. */
uint32_t links_instance(const struct links *links);

/* The directory it was opened with. */
const char *links_runtime_directory(const struct links *links);

/*
 * Makes a network's bridge, up, and puts its ifindex into outcome. -EEXIST: there is a link of that
 * name, ours or not, which stays untouched. -EADDRINUSE: the host uses a part of the subnet
 * already; -EADDRNOTAVAIL: it uses a part of the IPv6 prefix. -EAFNOSUPPORT: it has no IPv6. On any
 * failure nothing is left behind. Says into outcome what failed.
 */
int links_create_bridge(
	struct links *links, const struct bridge_wish *wish, struct verb_outcome *outcome);

/* -ENOENT: no such network of ours. -EBUSY: an interface is on its bridge. Says into outcome which.
 */
int links_check_bridge_unused(
	struct links *links, const char *network, struct verb_outcome *outcome);

/* Removes a network's bridge under the same conditions and with the same errors. */
int links_delete_bridge(struct links *links, const char *network, struct verb_outcome *outcome);

/*
 * Makes a TAP on the network's bridge and puts its ifindex and one fd a queue into outcome, which
 * holds the only ones: when they are closed the TAP is gone. All that keeps its port is in force
 * before the port is up. -ENOENT: no such network; -EEXIST: the number is in use. With an uplink:
 * on that (see uplink.h), and VERB_IS_MACVTAP when it is a macvtap link. A named TAP has no fd and
 * stays.
 */
int links_create_tap(
	struct links *links, const struct tap_wish *wish, struct verb_outcome *outcome);

/*
 * Deletes a TAP or macvtap link. Whoever holds its fd may have given it the MAC of another VM, with
 * which the bridge forgot where that one is: the network's locked ports get their entries again.
 * -ENOENT: no link of ours has that number.
 */
int links_delete_tap(struct links *links, uint32_t number, struct verb_outcome *outcome);

/* Makes every locked port of ours what its tag says: flags and forwarding entries. Says into
 * outcome what failed; a port that has gone meanwhile is no failure. */
int links_keep_ports(struct links *links, struct verb_outcome *outcome);

/* The facts of one network. -ENOENT: none of ours, or one without a usable address. */
int links_get_bridge(struct links *links, const char *network, struct bridge_facts *ret_facts,
	struct verb_outcome *outcome);

/* The facts of all networks of this instance; the array is the caller's to free. Negative errno. */
int links_list_bridges(
	struct links *links, struct bridge_facts **ret_bridges, size_t *ret_bridges_count);

/* The facts of one TAP or macvtap link by its number. -ENOENT: no link of ours has it; says so into
 * outcome. */
int links_get_tap(struct links *links, uint32_t number, struct tap_facts *ret_facts,
	struct verb_outcome *outcome);

/* All TAPs of this instance; the array is the caller's to free. Negative errno. */
int links_list_taps(struct links *links, struct tap_facts **ret_taps, size_t *ret_taps_count);

/*
 * Names of the interfaces by which the host reaches the world: those that default routes of
 * address_family (AF_INET, AF_INET6) leave by, or halves of one, as VPNs make them, in any table
 * that rules may lead to. The array is the caller's to free.
 */
int links_list_uplinks(struct links *links, int address_family, char (**ret_uplinks)[IFNAMSIZ],
	size_t *ret_uplinks_count);
