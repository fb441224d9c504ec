/*
 * The host forwards packets of shared networks, by the interfaces that this takes and no others,
 * and only as long as it takes them.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"

/*
 * Turns forwarding on, for IPv4 and for bridges with IPv6 for that, on every shared bridge and
 * every uplink of the moment, and puts back what an uplink had that is none any more; a bridge that
 * forwards already counts as shared. The file of saved-sysctls.h in the runtime directory
 * remembers. Says into outcome what failed.
 *
 * IPv6 before Linux 6.17 knows forwarding for all interfaces only, which ends the router
 * advertisements that give the host its own address, unless accept_ra is 2 first
 * (Documentation/networking/ip-sysctl.rst).
 */
int forwarding_apply(struct links *links, const struct bridge_facts *bridges, size_t bridges_count,
	struct verb_outcome *outcome);
