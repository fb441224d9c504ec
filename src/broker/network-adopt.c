/* Going on with what an earlier broker left in the kernel. */
#include "broker/network.h"

#include "base/log.h"
#include "broker/bridged.h"
#include "broker/interface.h"
#include "broker/network-adhoc.h"
#include "broker/network-config.h"
#include "broker/network-nat.h"
#include "broker/network-obstacles.h"
#include "broker/network-start.h"

#include <string.h>

/* The kernel's word on what it shows comes before that of the record. */
static void load_record(struct network *network)
{
	struct network_record record;
	int error = records_load_network(network->registry->records, network->name, &record);

	if (error) {
		log_warn(network->tag, "its settings could not be read back, defaults are used: %s",
			strerror(-error));
		record.uid = RECORDS_OWNER_UNKNOWN;
		network_settings_init(&record.settings, network->link.mode);
	}
	network->uid = record.uid;
	network->settings = record.settings;
	network->settings.mode = network->link.mode;
	network->settings.mtu = network->link.mtu;
	network->settings.gateway_offset = network->link.gateway_offset;
}

static void adopt_network(void *context, const struct platform_network *link)
{
	struct registry *registry = context;
	struct network *network = registry_find_entry(registry, link->name);
	char detail[PLATFORM_DETAIL_SIZE] = "";

	if (link->subnet.prefix_length == 0) {
		log_warn("main", "removed bridge %s, which was never finished", link->bridge);
		platform_destroy_network(registry->platform, link->name, detail);
		return;
	}
	if (!network && registry_add(registry, link->name, NULL, &network) < 0)
		return;
	network->link = *link;
	load_record(network);
	network_enter(network, NETWORK_RUNNING);
	log_info(network->tag, "adopted bridge %s", link->bridge);
	network_report_differences(network);
}

static void adopt_interface(void *context, const struct platform_interface *link)
{
	struct registry *registry = context;
	struct network *network = registry_find_entry(registry, link->network);

	if (!network || network->state == NETWORK_ABSENT || (link->is_leased && !link->named))
		network = bridged_adopt(registry, link->network);
	if (!network)
		log_warn("main", "interface number %08x belongs to network %s, which has no bridge",
			link->number, link->network);
	if (!network || link->tampering)
		interface_revoke(registry, link->number,
			link->tampering ? link->tampering : "its bridge is gone");
	else
		interface_adopt(network, link);
}

static const struct platform_visitor adoption = {
	.network = adopt_network,
	.interface = adopt_interface,
};

int registry_adopt(struct registry *registry)
{
	int error = platform_visit_links(registry->platform, &adoption, registry);

	if (error)
		return error;
	registry_sweep(registry);
	for (struct network *network = registry->networks; network; network = network->next) {
		if (network->state == NETWORK_ABSENT)
			continue;
		if (!network_is_bridged(network))
			network_start_adopted(network);
		network_settle(network);
	}
	registry_apply_nat(registry, "adopted networks");
	registry_check_overlaps(registry);
	/* Without networks, too: it takes away what a broker left that was killed in between. */
	registry_restore_guard(registry);
	registry_start_pinned(registry);
	return 0;
}
