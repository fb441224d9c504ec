/*
 * How much of what a user has, counted over what there is: networks, interfaces and their records,
 * which a restart of the broker reads back. Each answers "so many more?": 0, or -ECANCELED with
 * *failure (QuotaExceeded), which names the rule. Root has no limits.
 *
 * A network with a quota of its own ("quotas" in its configuration) is counted alone; all others
 * share the user's default.
 */
#pragma once

#include "broker/network.h"

/* An interface with that many queues. */
int quotas_check_interface(
	const struct network *network, uid_t uid, uint32_t queues, struct failure *failure);

/* A network that is not configured, made by a user from options. */
int quotas_check_network(const struct registry *registry, uid_t uid, struct failure *failure);

/* count tells how many forwards a user has on one network, elsewhere is how many he has for
 * networks that have no entry any more. */
int quotas_check_forward(const struct network *network, uid_t uid,
	size_t (*count)(const struct network *network, uid_t uid), size_t elsewhere,
	struct failure *failure);
