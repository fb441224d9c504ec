/*
 * Links of the host that VMs of mode bridged are put on. None of them is ever changed here.
 */
#pragma once

#include "priv/rtnl.h"

/*
 * The link of that name, to be put: an Ethernet link that is up, not ours, and no radio. Says into
 * outcome what is wrong with another, and what to do. -ENODEV: there is none; -ENETDOWN,
 * -EOPNOTSUPP, -EBUSY, -EPERM.
 */
int uplink_find(struct links *links, const char *name, struct rtnl_link **ret_link,
	struct verb_outcome *outcome);

/* Whether TAPs can be its ports. */
bool uplink_is_bridge(struct rtnl_link *uplink);

/* A macvtap link to be made; checked by the caller. */
struct macvtap_wish {
	const char *network;
	uint32_t number;
	uint32_t queues;
	struct mac mac; /* the VM's: nothing else reaches it */
};

/*
 * Makes a macvtap link of mode bridge on uplink, and puts its ifindex and one fd a queue into
 * outcome. The link does not go with these (kernel: drivers/net/tap.c): it stays until it is
 * deleted, or uplink goes. -EEXIST: the number is in use.
 */
int macvtap_create(struct links *links, struct rtnl_link *uplink, const struct macvtap_wish *wish,
	struct verb_outcome *outcome);
