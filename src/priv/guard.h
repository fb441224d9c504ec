/*
 * What VMs may not send, whatever their network lets them reach: the instance's nft table of family
 * bridge, made from what the kernel's links say. It sees frames before a bridge does, and needs no
 * br_netfilter. docs/security.md says what each rule is for.
 *
 * Every TAP of ours: no answers of DHCP servers, no router advertisements and redirects, nothing in
 * the name of a gateway, no frames between bridges (IEEE 802.1D 7.12.6). Isolated ones: no way
 * round by the host's routing. Locked ones: nothing but their own MAC and addresses.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"

/*
 * Makes the table anew in one transaction, repairing whatever others did to it; without links of
 * ours it goes. Says into outcome what failed; the rules that were in force stay then.
 */
int guard_apply(struct links *links, struct verb_outcome *outcome);

/* Adds what a new bridge needs; costs the same however many there are. As guard_apply(). */
int guard_add_bridge(
	struct links *links, const struct bridge_facts *bridge, struct verb_outcome *outcome);

/* The same for a TAP that is isolated or locked; there is nothing to do for others. It must have
 * its tag and should not be up. */
int guard_add_tap(struct links *links, const struct tap_facts *tap, struct verb_outcome *outcome);

/* What the rules are made of; nothing in it is owned. */
struct guard_facts {
	uint32_t instance;
	const struct bridge_facts *bridges;
	size_t bridges_count;
	const struct tap_facts *taps;
	size_t taps_count;
};

/* The nft commands for the whole table, to be freed. Pure. NULL when memory is out. */
char *guard_build_commands(const struct guard_facts *facts);

/* Those that add facts to a table that lacks only them. As guard_build_commands(). */
char *guard_build_additions(const struct guard_facts *facts);
