/*
 * UDP flows that the kernel translates still, or does not yet, as forwards of before had it. TCP
 * connections end by themselves, and outlive their forward until then; a flow of datagrams that
 * never pauses would go on for good.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"
#include "priv/verbs.h"

#include <stdbool.h>

/* What connection tracking knows of one flow. Addresses as struct verb_forward has them. */
struct forwards_flow {
	uint8_t is_ipv6;
	bool is_led;    /* its destination is translated */
	bool is_masked; /* its source is */
	uint16_t port;  /* where its sender sends to, host byte order */
	uint8_t address[16];
	uint16_t target_port; /* who answers it */
	uint8_t target[16];
};

/*
 * Whether the flow would be led elsewhere, were it to begin now: pure. Flows that lead to nobody of
 * ours, and that no forward would take, are none of our business.
 */
bool forwards_flow_is_stale(const struct forwards_flow *flow, const struct verb_forward *forwards,
	size_t forwards_count, const struct bridge_facts *bridges, size_t bridges_count);

/*
 * Has the kernel forget the stale flows, so that their next packet begins anew. One without
 * connection tracking for user space (nf_conntrack_netlink) keeps them until they time out. Says
 * into outcome what failed.
 */
int forwards_end_flows(const struct verb_forward *forwards, size_t forwards_count,
	const struct bridge_facts *bridges, size_t bridges_count, struct verb_outcome *outcome);
