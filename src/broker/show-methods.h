/* The methods that only tell: of one network, leases and counters. Each answers the peer. */
#pragma once

#include "broker/network.h"
#include "broker/peer.h"
#include "wire/varlink.h"

void show_handle_describe_network(
	struct peer *peer, const struct registry *registry, const struct varlink_call *call);
void show_handle_list_leases(
	struct peer *peer, const struct registry *registry, const struct varlink_call *call);

/* As statistics_start() has it with slot. */
struct statistics_query;
void show_handle_list_statistics(struct peer *peer, const struct registry *registry,
	const struct varlink_call *call, struct statistics_query **slot);

/* The socket where an interface's helper is asked, for its owner. */
void show_handle_serve_counters(
	struct peer *peer, const struct registry *registry, const struct varlink_call *call);
