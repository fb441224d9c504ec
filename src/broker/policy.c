#include "broker/policy.h"

#include "priv/names.h"

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

int policy_check_interface(uid_t uid, size_t interfaces_of_user, struct failure *failure)
{
	if (uid != 0 && interfaces_of_user >= POLICY_INTERFACES_MAX)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"user %u has %d interfaces already, the limit of a user; stop some VMs",
			uid, POLICY_INTERFACES_MAX);
	return 0;
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
