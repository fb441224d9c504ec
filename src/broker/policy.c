#include "broker/policy.h"

#include "priv/names.h"

#include <stdio.h>

int policy_check_peer(uid_t uid, size_t peers, size_t peers_of_user, struct failure *failure)
{
	if (peers >= POLICY_PEERS_MAX)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"the broker serves %d connections already, its limit; try again when some "
			"have "
			"ended",
			POLICY_PEERS_MAX);
	if (uid != 0 && peers_of_user >= POLICY_PEERS_PER_USER)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"user %u has %d connections already, the limit of a user; close some", uid,
			POLICY_PEERS_PER_USER);
	return 0;
}

const struct policy_quota policy_networks = {"networks", POLICY_NETWORKS_MAX, "end the VMs of one"};
const struct policy_quota policy_interfaces = {
	"interfaces", POLICY_INTERFACES_MAX, "stop some VMs"};
const struct policy_quota policy_queues = {
	"queues", POLICY_QUEUES_MAX, "stop some VMs, or give this one fewer queues"};
const struct policy_quota policy_forwards = {"forwards", POLICY_FORWARDS_MAX, "end some forwards"};

int policy_check_quota(uid_t uid, const struct policy_quota *quota, size_t used, size_t more,
	const struct policy_rule *rule, struct failure *failure)
{
	uint32_t limit = rule ? rule->limit : quota->limit;
	char wanted[40] = "";

	if (uid == 0 || used + more <= limit)
		return 0;
	if (more > 1)
		snprintf(wanted, sizeof(wanted), " and asks for %zu", more);
	if (rule)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"user %u has %zu %s on network \"%s\" already%s, and %s: %s.quotas.%s is "
			"%u; %s",
			uid, used, quota->key, rule->network, wanted, rule->file, rule->network,
			quota->key, limit, quota->mend);
	return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
		"user %u has %zu %s already%s, the limit of a user is %u; %s", uid, used,
		quota->key, wanted, limit, quota->mend);
}

int policy_check_hold(const char *network, size_t networks_held, struct failure *failure)
{
	if (networks_held >= POLICY_NETWORKS_PER_PEER)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"this connection holds %d networks already, the limit of one; acquire "
			"\"%s\" over another",
			POLICY_NETWORKS_PER_PEER, network);
	return 0;
}

int policy_check_mac(struct mac mac, struct failure *failure)
{
	char text[MAC_TEXT_SIZE];

	mac_to_text(mac, text);
	if (!mac_is_unicast(mac))
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
			"MAC %s is a multicast or zero address; a VM needs a unicast one, such as "
			"02:...",
			text);
	if (mac_is_reserved(mac))
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
			"MAC %s is one of the broker's own (fe:76 and fe:77); choose another, such "
			"as "
			"02:...",
			text);
	return 0;
}

int policy_check_capture(uid_t uid, size_t own, size_t of_users, struct failure *failure)
{
	if (uid == 0)
		return 0;
	if (own >= POLICY_CAPTURES_MAX)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"you run %d captures already, as many as a user can; end one first",
			POLICY_CAPTURES_MAX);
	if (of_users >= POLICY_CAPTURES_OF_USERS)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"users run %d captures already, as many as there can be; try again later",
			POLICY_CAPTURES_OF_USERS);
	return 0;
}

int policy_pace_capture(uid_t uid, size_t interfaces, uint64_t now_ms, uint64_t *free_at_ms,
	struct failure *failure)
{
	const uint64_t burst_ms = POLICY_CAPTURE_BURST * 1000 / POLICY_CAPTURE_RATE;
	uint64_t cost_ms = (POLICY_CAPTURE_START + interfaces) * 1000 / POLICY_CAPTURE_RATE;
	uint64_t after_ms = (*free_at_ms > now_ms ? *free_at_ms : now_ms) + cost_ms;

	if (uid == 0)
		return 0;
	if (after_ms > now_ms + burst_ms)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"users started captures of too many interfaces within a short time; try "
			"again in %llu s",
			(unsigned long long)(after_ms - now_ms - burst_ms) / 1000 + 1);
	*free_at_ms = after_ms;
	return 0;
}
