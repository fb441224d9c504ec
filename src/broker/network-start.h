/*
 * How a network comes into being: its subnet, its records, its bridge, NAT, hosts and dnsmasq.
 */
#pragma once

#include "broker/network.h"

/* The one place where a network's state changes. */
void network_enter(struct network *network, enum network_state state);

/*
 * Makes an ABSENT network STARTING, or, where dnsmasq serves at once, more than that. On failure
 * everything made is undone, and *failure (CreateFailure) says what a person can do.
 */
int network_start(struct network *network, uid_t uid, struct failure *failure);

/* The rest of an adopted network: its records, hosts and dnsmasq. Problems are logged. */
void network_start_adopted(struct network *network);

/* What is left to undo when the bridge has gone: NAT, records. */
void network_start_undo(struct network *network);
