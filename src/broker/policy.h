/*
 * Who may have how much. Pure: counts in, verdicts out.
 */
#pragma once

#include "broker/failure.h"

#include <stddef.h>
#include <sys/types.h>

#define POLICY_PEERS_MAX         512 /* connections in all, root's included */
#define POLICY_PEERS_PER_USER    64
#define POLICY_INTERFACES_MAX    512 /* live interfaces of one user */
#define POLICY_NETWORKS_PER_PEER 8   /* distinct networks one connection may hold */

/*
 * Each of these answers "one more?": the counts are those before the new object. Returns 0, or
 * -ECANCELED with *failure (QuotaExceeded) filled in. Root is bound by nothing but
 * POLICY_PEERS_MAX and POLICY_NETWORKS_PER_PEER, which guard the broker and not other users.
 */
int policy_check_peer(uid_t uid, size_t peers, size_t peers_of_user, struct failure *failure);
int policy_check_interface(uid_t uid, size_t interfaces_of_user, struct failure *failure);
int policy_check_hold(const char *network, size_t networks_held, struct failure *failure);

/* A MAC a VM may declare: unicast, not zero, none of the broker's own (InvalidRequest otherwise).
 */
int policy_check_mac(struct mac mac, struct failure *failure);
