/* The rules in the host's firewall that the networks of the moment need. */
#include "broker/network.h"

#include "base/log.h"
#include "broker/bridged.h"
#include "broker/interface.h"

#include <string.h>

bool registry_has_bridges(const struct registry *registry)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT && !network_is_bridged(network))
			return true;
	return false;
}

static bool has_taps(const struct registry *registry)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		for (const struct interface *found = network->interfaces; found;
			found = found->next)
			if (!found->is_leased || found->named)
				return true;
	return false;
}

static void apply_guard(struct registry *registry, const char *reason)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error = platform_apply_guard(registry->platform, detail);

	if (error)
		log_error("main", "rules for what VMs may send could not be applied: %s",
			*detail ? detail : strerror(-error));
	else if (reason)
		log_info("main", "applied the rules for what VMs may send again: %s", reason);
}

void registry_apply_guard(struct registry *registry, const char *reason)
{
	/* Without TAPs there is nothing to keep up, and its removal would be reported again. */
	if (registry_has_bridges(registry) || has_taps(registry))
		apply_guard(registry, reason);
}

void registry_restore_guard(struct registry *registry)
{
	apply_guard(registry, registry_is_empty(registry) ? NULL : "adopted networks");
}
