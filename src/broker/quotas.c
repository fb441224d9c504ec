#include "broker/quotas.h"

#include "broker/interface.h"
#include "broker/policy.h"

#include <stddef.h>

typedef size_t count_on_network(const struct network *network, uid_t uid);

static size_t count_interfaces(const struct network *network, uid_t uid)
{
	size_t count = 0;

	for (const struct interface *found = network->interfaces; found; found = found->next)
		count += found->record.uid == uid;
	return count;
}

static size_t count_queues(const struct network *network, uid_t uid)
{
	size_t count = 0;

	for (const struct interface *found = network->interfaces; found; found = found->next)
		if (found->record.uid == uid)
			count += found->record.queues;
	return count;
}

/* The network's own quota, or CONFIG_QUOTA_UNSET. */
static uint32_t find_quota(const struct network *network, size_t offset)
{
	if (!network->config)
		return CONFIG_QUOTA_UNSET;
	return *(const uint32_t *)(const void *)((const char *)&network->config->quotas + offset);
}

static int check(const struct network *network, uid_t uid, const struct policy_quota *quota,
	size_t offset, size_t more, count_on_network *count, size_t elsewhere,
	struct failure *failure)
{
	uint32_t own = find_quota(network, offset);
	size_t used = elsewhere;

	if (own != CONFIG_QUOTA_UNSET)
		return policy_check_quota(uid, quota, count(network, uid), more,
			&(struct policy_rule){network->config->file, network->name, own}, failure);
	for (const struct network *other = network->registry->networks; other; other = other->next)
		if (find_quota(other, offset) == CONFIG_QUOTA_UNSET)
			used += count(other, uid);
	return policy_check_quota(uid, quota, used, more, NULL, failure);
}

int quotas_check_interface(
	const struct network *network, uid_t uid, uint32_t queues, struct failure *failure)
{
	int error = check(network, uid, &policy_interfaces,
		offsetof(struct config_quotas, interfaces), 1, count_interfaces, 0, failure);

	return error ? error
		     : check(network, uid, &policy_queues, offsetof(struct config_quotas, queues),
			       queues, count_queues, 0, failure);
}

int quotas_check_forward(const struct network *network, uid_t uid,
	size_t (*count)(const struct network *network, uid_t uid), size_t elsewhere,
	struct failure *failure)
{
	return check(network, uid, &policy_forwards, offsetof(struct config_quotas, forwards), 1,
		count, elsewhere, failure);
}

int quotas_check_network(const struct registry *registry, uid_t uid, struct failure *failure)
{
	size_t used = 0;

	for (const struct network *network = registry->networks; network; network = network->next)
		used += !network->config && network->state != NETWORK_ABSENT && network->uid == uid;
	return policy_check_quota(uid, &policy_networks, used, 1, NULL, failure);
}
