/*
 * Networks of mode bridged: VMs on an interface of the host, and with it on the LAN. Such a network
 * has no bridge, address, DHCP or NAT of ours; it is there while an interface or a hold is.
 *
 * On a bridge of the host an interface is a TAP, as elsewhere. On any other link it is a macvtap
 * link, which does not go with its last fd and tells nobody when that is closed: it is leased to
 * the connection that had it made. A broker that was restarted knows of no connection, and goes by
 * that one's process (docs/decisions/015-bridged-mode.md).
 */
#pragma once

#include "broker/credentials.h"
#include "broker/interface.h"
#include "broker/network.h"

/* Whether it is of that mode: as it runs, or as it would. */
bool network_is_bridged(const struct network *network);

/*
 * The network whose uplink is an interface of that name: the first that user may use, else the
 * first. -ECANCELED with *failure (NotAllowed) when there is none.
 */
int bridged_find(const struct registry *registry, const char *interface_name,
	const struct credentials *user, const struct network **ret_network,
	struct failure *failure);

/* Makes an ABSENT network RUNNING for uid. -ECANCELED with *failure filled in. */
int bridged_start(struct network *network, uid_t uid, struct failure *failure);

/* Makes one ABSENT again that has no user any more. */
void bridged_stop(struct network *network);

/*
 * The network of an interface that the kernel shows: entered and RUNNING by its record where it is
 * not yet. NULL when that record is none of a network of mode bridged.
 */
struct network *bridged_adopt(struct registry *registry, const char *name);

/* Says that a leased interface's connection has ended: so does the interface. */
void bridged_end_lease(struct registry *registry, uint32_t number);
