/*
 * Who may have how much. Pure: counts in, verdicts out.
 */
#pragma once

#include "broker/failure.h"

#include <stddef.h>
#include <sys/types.h>

#define POLICY_PEERS_MAX         512 /* connections in all, root's included */
#define POLICY_PEERS_PER_USER    64
#define POLICY_NETWORKS_MAX      16   /* networks one user had made from options */
#define POLICY_INTERFACES_MAX    512  /* live interfaces of one user */
#define POLICY_QUEUES_MAX        1024 /* of these interfaces */
#define POLICY_FORWARDS_MAX      256  /* published ports of one user */
#define POLICY_CAPTURES_MAX      4    /* of one user, who is not root */
#define POLICY_CAPTURES_OF_USERS 12   /* of all who are not root: some are left for root */
#define POLICY_NETWORKS_PER_PEER 8    /* distinct networks one connection may hold */

/*
 * Each of these answers "one more?": the counts are those before the new object. Returns 0, or
 * -ECANCELED with *failure (QuotaExceeded) filled in. Root is bound by nothing but
 * POLICY_PEERS_MAX and POLICY_NETWORKS_PER_PEER, which guard the broker and not other users.
 */
int policy_check_peer(uid_t uid, size_t peers, size_t peers_of_user, struct failure *failure);
int policy_check_hold(const char *network, size_t networks_held, struct failure *failure);

/*
 * How often users may start captures: each costs priv, which serves nobody else meanwhile, a
 * process and a socket an interface. What a process costs is counted as so many interfaces.
 */
#define POLICY_CAPTURE_START 16
#define POLICY_CAPTURE_BURST 1024 /* interfaces in captures that start one after the other */
#define POLICY_CAPTURE_RATE  64   /* interfaces a second beyond that */

/*
 * Takes what a capture of so many interfaces costs from what all users together have left at now_ms
 * (the monotonic clock). *free_at_ms, 0 at first, is when they have everything again. Root always
 * may. -ECANCELED with *failure filled in: too soon, and nothing was taken.
 */
int policy_pace_capture(uid_t uid, size_t interfaces, uint64_t now_ms, uint64_t *free_at_ms,
	struct failure *failure);

/* The same, of captures; root is bound by nothing here. */
int policy_check_capture(uid_t uid, size_t own, size_t of_users, struct failure *failure);

/* What a user can have only so much of. */
struct policy_quota {
	const char *key; /* of "quotas" in the configuration, and what people call them */
	uint32_t limit;  /* where nothing else is configured */
	const char *mend;
};
extern const struct policy_quota policy_networks, policy_interfaces, policy_queues, policy_forwards;

/* What one network's configuration says instead. */
struct policy_rule {
	const char *file, *network;
	uint32_t limit;
};

/* Whether a user who has used may have more; rule is NULL where the quota's own limit holds. */
int policy_check_quota(uid_t uid, const struct policy_quota *quota, size_t used, size_t more,
	const struct policy_rule *rule, struct failure *failure);

/* A MAC a VM may declare: unicast, not zero, none of the broker's own (InvalidRequest otherwise).
 */
int policy_check_mac(struct mac mac, struct failure *failure);
