/*
 * ListStatistics: what the kernel counted, at once, and what helpers counted, which are asked and
 * given half a second to answer. What does not come by then is left out.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/network.h"
#include "broker/peer.h"

struct statistics_query;

/*
 * Begins to answer the peer's current call, which may have been answered or failed when this
 * returns. Else *slot is the query, until it has answered and frees itself. peer and slot outlive
 * it.
 */
void statistics_start(struct peer *peer, const struct registry *registry, const char *after,
	struct statistics_query **slot);

/* Gives it up without an answer. NULL is allowed. */
void statistics_cancel(struct statistics_query *query);
DEFINE_CLEANUP(struct statistics_query, statistics_cancel)
