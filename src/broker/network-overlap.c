/* A host that moves: its new addresses and routes may be those of a running network. */
#include "broker/network-overlap.h"

#include "base/log.h"

#include <string.h>

static bool is_bridge_of_ours(const struct registry *registry, const char *link)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT && strcmp(network->link.bridge, link) == 0)
			return true;
	return false;
}

static const struct subnet_use *find_use(
	const struct network *network, const struct subnet_uses *uses)
{
	for (size_t i = 0; i < uses->count; i++) {
		const struct subnet_use *use = &uses->entries[i];
		const struct subnet_uses one = {.entries = &uses->entries[i], .count = 1};

		if (subnet_find_use(&one, network->link.subnet) &&
			!is_bridge_of_ours(network->registry, use->link))
			return use;
	}
	return NULL;
}

int network_find_overlap(const struct network *network, char *text, size_t text_size)
{
	struct subnet_uses uses = {0};
	const struct subnet_use *use = NULL;
	int error = platform_list_uses(network->registry->platform, &uses);

	if (!error)
		use = find_use(network, &uses);
	if (use)
		snprintf(text, text_size, "%s", use->owner);
	subnet_uses_done(&uses);
	if (error)
		return error;
	return use ? 1 : 0;
}

static void warn(const struct network *network, const char *use)
{
	char subnet[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(network->link.subnet, subnet);
	log_warn(network->tag,
		"its subnet %s overlaps the host's %s now: VMs go on, but those addresses of the "
		"host's are out of reach; %s",
		subnet, use,
		network->settings.has_subnet
			? "give it another \"subnet\" in the configuration, then end its VMs"
			: "end its VMs, and it starts on a free one");
}

void registry_check_overlaps(struct registry *registry)
{
	char text[SUBNET_OWNER_SIZE];

	for (struct network *network = registry->networks; network; network = network->next) {
		int found;

		if (network->state == NETWORK_ABSENT || network->overlap_told)
			continue;
		found = network_find_overlap(network, text, sizeof(text));
		if (found <= 0)
			continue;
		warn(network, text);
		network->overlap_told = true;
	}
}
