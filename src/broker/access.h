/*
 * Who may use which network: what its configuration allows, or who made it where it has none.
 */
#pragma once

#include "broker/credentials.h"
#include "broker/network.h"

/*
 * Whether a user may hold the network and attach VMs to it. Root may always. Of a configured one
 * its allow list decides; without a list everybody who can connect may, but not on a network of
 * mode bridged, which gives VMs a place on the host's own LAN (an ordinary user's broker has none
 * of these for anybody, and says so when one is to start). One that runs and is not, or not
 * rightly, in the configuration any more stays with who had it made: what it allowed is unknown.
 * Ad-hoc networks are open to everybody who can connect.
 */
bool access_is_granted(const struct network *network, const struct credentials *user);

/* The same for a request: 0, or -ECANCELED with *failure (NotAllowed), which names the rule. */
int access_check(
	const struct network *network, const struct credentials *user, struct failure *failure);
