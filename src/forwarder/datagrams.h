/*
 * UDP packets that are led on: each peer of a forward has a socket of its own towards the VM, so
 * that the VM tells peers apart by their ports and answers find back. Answers leave by the socket
 * that listens, from the address that was asked.
 *
 * Packets are read and written in batches, into memory that is there from the start. What a socket
 * has no room for is dropped, as networks do.
 */
#pragma once

#include "forwarder/flows.h"

/*
 * RFC 4787, REQ-5: a mapping lives for two minutes at least; programs that keep one alive send
 * every two minutes at most, and may be late.
 */
#define FLOW_IDLE_MS 180000

struct datagram_batch;

struct datagrams {
	struct loop *loop;
	struct flows flows;
	struct datagram_batch *batch; /* owned */
};

/* At most flows_max (2 or more) peers; beyond, the one that was silent for longest goes. The loop
 * outlives it. Negative errno. */
int datagrams_init(struct datagrams *datagrams, struct loop *loop, size_t flows_max);
void datagrams_done(struct datagrams *datagrams);

/* Has the kernel tell, for each packet of a listener, the address it was sent to. Negative errno of
 * setsockopt(2). */
int datagrams_prepare(const struct listener *listener);

/* Leads on what has come for a listener: a batch of it. */
void datagrams_take(struct datagrams *datagrams, struct listener *listener);

/* Ends the listener's flows. */
void datagrams_end_flows(struct datagrams *datagrams, const struct listener *listener);

/* Ends flows of all listeners that lead elsewhere than those do now. */
void datagrams_end_stale_flows(struct datagrams *datagrams);

/* Ends flows that were silent for FLOW_IDLE_MS. */
void datagrams_expire(struct datagrams *datagrams);

/* Whether there is a flow that could expire. */
bool datagrams_have_flows(const struct datagrams *datagrams);
