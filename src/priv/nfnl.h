/*
 * nf_tables by netlink (linux/netfilter/nf_tables.h), for what others made: libnftables reads a
 * whole ruleset before it changes anything, and takes names only of its own grammar.
 */
#pragma once

#include "base/cleanup.h"

#include <netlink/msg.h>
#include <netlink/socket.h>
#include <stdint.h>

/* A connected socket for the calls below. Negative errno. */
int nfnl_open(struct nl_sock **ret_socket);

/*
 * A request for nf_tables, to be freed: type is NFT_MSG_*, family NFPROTO_*, flags NLM_F_*. NULL
 * when memory is out.
 */
struct nl_msg *nfnl_message(int type, uint8_t family, int flags);

/*
 * Sends a dump request, which it takes over, and calls valid for every message of the answer.
 * Negative errno; -EINTR: the rules changed meanwhile, valid has not seen all of them.
 */
int nfnl_dump(
	struct nl_sock *socket, struct nl_msg *request, nl_recvmsg_msg_cb_t valid, void *context);

/*
 * Commits one change, which it takes over, as a transaction of its own. Negative errno; -ENOENT:
 * its table, chain or rule has gone; -EPERM: the table belongs to another process alone.
 */
int nfnl_commit(struct nl_sock *socket, struct nl_msg *change);
