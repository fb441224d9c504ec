/*
 * What bridge.c, ipv6.c, tap.c, facts.c and routes.c share of rtnetlink (rtnetlink(7)). Nobody else
 * includes it.
 */
#pragma once

#include "base/cleanup.h"
#include "priv/links.h"

#include <netlink/cache.h>
#include <netlink/msg.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/route.h>
#include <netlink/socket.h>

struct links {
	struct nl_sock *socket;
	uint32_t instance;
	const char *runtime_directory;
};

DEFINE_CLEANUP(struct nl_cache, nl_cache_free)
DEFINE_CLEANUP(struct rtnl_link, rtnl_link_put)
DEFINE_CLEANUP(struct rtnl_addr, rtnl_addr_put)
DEFINE_CLEANUP(struct nl_addr, nl_addr_put)
DEFINE_CLEANUP(struct nl_msg, nlmsg_free)
DEFINE_CLEANUP(struct nl_sock, nl_socket_free)

/* libnl's negative NLE_* as negative errno. */
int rtnl_error_to_errno(int error);

/* A new reference to the link of that name, to be put. -ENODEV: none. */
int rtnl_find_link(struct links *links, const char *name, struct rtnl_link **ret_link);

/* -ENOENT when the link carries no tag of this instance and kind. */
int rtnl_read_tag(
	struct links *links, struct rtnl_link *link, enum link_kind kind, struct link_tag *ret_tag);

/* The link of a network's bridge, to be put. -ENOENT: none carries that network's tag. */
int rtnl_find_bridge(struct links *links, const char *network, struct rtnl_link **ret_link);

/* Sends the message, which it takes over, and waits for the kernel's word. */
int rtnl_request(struct links *links, struct nl_msg *message);

/*
 * Tags a link with alias and altname and sets its MTU. The alias comes first: it decides whose the
 * link is.
 */
int rtnl_tag_link(struct links *links, int index, const struct link_tag *tag, const char *altname,
	uint32_t mtu);

/* Makes it a port of the bridge with index master, up or down as it is. */
int rtnl_enslave_link(struct links *links, int index, int master);

/* Takes it up, onto the bridge first where master is not 0. */
int rtnl_start_link(struct links *links, int index, int master);

/*
 * Waits until a bridge that is up sends: one whose last port has gone drops what it is to send
 * until the kernel's linkwatch has seen its next port, which is a moment later
 * (net/core/link_watch.c). Gives up after 200 ms; a bridge whose ports have no carrier never sends.
 */
void rtnl_wait_running(struct links *links, int index);

/* An RTM_ message with the header of links, family AF_UNSPEC or AF_BRIDGE; NULL when memory is out.
 */
struct nl_msg *rtnl_new_link_message(int type, int family, int index);

/*
 * Keeps a port of a bridge as its tag says, before it is up. locked: a kernel from 5.18 on drops
 * what comes from another MAC than the one for which the port has an entry; older ones leave that
 * to the guard's rules. Says nothing of isolated and locked ports that are neither. Negative errno.
 */
int rtnl_keep_port(struct links *links, int index, const struct link_port *port);

/* How many queues are attached to a multi-queue TAP, whoever holds them; 0 for any other link. */
int rtnl_count_tap_queues(int index, uint32_t *ret_count);

/* -ENODEV when it is gone already. */
int rtnl_delete_link(struct links *links, int index);

/* The link of a route's first next hop; 0: none. */
int rtnl_first_hop_index(struct rtnl_route *route);

/*
 * Turns IPv6 on and gives the host its address, or turns it off, as the wish has it; before the
 * link is up. -EAFNOSUPPORT: the kernel has no IPv6.
 */
int rtnl_set_ipv6(struct links *links, int index, const struct bridge_wish *wish, const char *name);

/* -EAFNOSUPPORT when the host has no IPv6; -EADDRNOTAVAIL when an address or route of it overlaps
 * the prefix. Says what it is. */
int rtnl_check_ipv6(struct links *links, const uint8_t ipv6_prefix[IPV6_PREFIX_SIZE],
	struct verb_outcome *outcome);

/* True when address can be what rtnl_set_ipv6() gave the link index; its prefix is filled in then.
 */
bool rtnl_read_ipv6_gateway(
	struct rtnl_addr *address, int index, uint8_t ret_prefix[IPV6_PREFIX_SIZE]);

/* -EADDRINUSE when an address or route of the host overlaps the subnet; says which. */
int rtnl_check_subnet_free(
	struct links *links, struct ipv4_subnet subnet, struct verb_outcome *outcome);
