/*
 * What bridge.c, tap.c, facts.c and routes.c share of rtnetlink (rtnetlink(7)). Nobody else
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

/* Takes it up, onto the bridge first where master is not 0. */
int rtnl_start_link(struct links *links, int index, int master);

/* How many queues are attached to a multi-queue TAP, whoever holds them; 0 for any other link. */
int rtnl_count_tap_queues(int index, uint32_t *ret_count);

/* -ENODEV when it is gone already. */
int rtnl_delete_link(struct links *links, int index);

/* -EADDRINUSE when an address or route of the host overlaps the subnet; says which. */
int rtnl_check_subnet_free(
	struct links *links, struct ipv4_subnet subnet, struct verb_outcome *outcome);
