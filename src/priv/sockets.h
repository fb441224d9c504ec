/*
 * Sockets that only a privileged process can make or enlarge.
 */
#pragma once

#include "priv/outcome.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Makes SO_SNDBUF and SO_RCVBUF of every AF_UNIX socket at least bytes (at most VERB_BUFFER_MAX),
 * whatever net.core.wmem_max says (socket(7)). The sockets stay the caller's. -EINVAL: one of them
 * is none, then all are as they were. Puts the smallest SO_SNDBUF into outcome.
 */
int sockets_force_buffers(
	const int *sockets, size_t sockets_count, uint32_t bytes, struct verb_outcome *outcome);

/* Adds a non-blocking netlink socket to outcome that hears of changed nftables rules. */
int sockets_open_nft_events(struct verb_outcome *outcome);

/* Adds a blocking, bound NETLINK_ROUTE socket to outcome. Who gets it may ask and listen, in this
 * network namespace, as anybody there may. */
int sockets_open_route(struct verb_outcome *outcome);
