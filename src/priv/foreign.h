/*
 * Other people's firewalls let our networks through: a tagged accept where, and only where, a
 * policy would drop them. What is there is read back from the kernel each time.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"

/*
 * Brings the rules of this instance in foreign chains up to date: those that the bridges ask for
 * are added where a chain of hook input or forward drops by its policy, all others of ours are
 * deleted. Changes nothing when all is as it should be. A table that another process owns alone
 * (NFT_TABLE_F_OWNER), or one that goes meanwhile, is passed over. Says into outcome what failed.
 */
int foreign_apply(uint32_t instance, const struct bridge_facts *bridges, size_t bridges_count,
	struct verb_outcome *outcome);

/*
 * Puts into outcome an fd of a memory file with what the firewalls look like, one line each:
 *     chain FAMILY HOOK TABLE NAME STATE          a base chain of somebody else's, or Docker's
 *     rule FAMILY TABLE NAME COMMENT              a rule of ours in one
 *     legacy FAMILY TABLE                         a table of the iptables that nftables can not see
 * STATE is accept, by its policy; open, where rules of ours make up for its drop; docker, where
 * those in Docker's chain do; drop, where nothing does. FAMILY is ip, ip6 or inet, HOOK input,
 * forward or output. Negative errno.
 */
int foreign_report(struct links *links, struct verb_outcome *outcome);
