#include "broker/bridged.h"

#include "base/log.h"
#include "broker/access.h"
#include "broker/network-start.h"

#include <errno.h>
#include <string.h>

bool network_is_bridged(const struct network *network)
{
	const struct network_settings *settings =
		network->state == NETWORK_ABSENT && network->config ? &network->config->settings
								    : &network->settings;

	return settings->mode == NETWORK_MODE_BRIDGED;
}

int bridged_find(const struct registry *registry, const char *interface_name,
	const struct credentials *user, const struct network **ret_network, struct failure *failure)
{
	const struct network *found = NULL;

	for (const struct network *network = registry->networks; network; network = network->next) {
		if (!network->config || network->config->settings.mode != NETWORK_MODE_BRIDGED ||
			strcmp(network->config->settings.uplink, interface_name) != 0)
			continue;
		if (!found || (!access_is_granted(found, user) && access_is_granted(network, user)))
			found = network;
	}
	if (!found)
		return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
			"interface \"%s\" is not shared: no network of mode \"bridged\" in the "
			"configuration has \"uplink\": \"%s\"; vmnet-helper "
			"--list-shared-interfaces lists those that are",
			interface_name, interface_name);
	*ret_network = found;
	return 0;
}

static void report_start(const struct network *network)
{
	log_info(network->tag, "serves on interface %s of the host, MTU %u",
		network->settings.uplink, network->link.mtu);
}

/* What of a network without a bridge would be read back from that. */
static void set_link(struct network *network, uint32_t mtu)
{
	network->link = (struct platform_network){
		.mode = NETWORK_MODE_BRIDGED,
		.mtu = mtu,
	};
	snprintf(network->link.name, sizeof(network->link.name), "%s", network->name);
}

int bridged_start(struct network *network, uid_t uid, struct failure *failure)
{
	struct registry *registry = network->registry;
	struct network_record record = {.settings = network->settings, .uid = uid};
	uint32_t mtu = 0;
	int error = platform_read_uplink(registry->platform, network->settings.uplink, &mtu);

	if (error)
		return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"network \"%s\": its uplink, interface \"%s\": %s; plug it in, or "
			"configure another \"uplink\"",
			network->name, network->settings.uplink,
			error == -ENODEV ? "the host has none of that name" : strerror(-error));
	error = records_save_network(registry->records, network->name, &record);
	if (error)
		return failure_set(failure, BROKER_ERROR_INTERNAL,
			"the record of network \"%s\" could not be written: %s", network->name,
			strerror(-error));
	set_link(network, mtu);
	network->uid = uid;
	report_start(network);
	network_enter(network, NETWORK_RUNNING);
	return 0;
}

void bridged_stop(struct network *network)
{
	int error = records_remove_network(network->registry->records, network->name);
	char detail[PLATFORM_DETAIL_SIZE] = "";

	if (error)
		log_warn(network->tag, "its record could not be removed: %s", strerror(-error));
	network_enter(network, NETWORK_ABSENT);
	error = platform_apply_guard(network->registry->platform, detail);
	if (error)
		log_warn(network->tag, "the rules for what its VMs sent could not be removed: %s",
			*detail ? detail : strerror(-error));
}

struct network *bridged_adopt(struct registry *registry, const char *name)
{
	struct network *network = registry_find_entry(registry, name);
	struct network_record record;
	uint32_t mtu = SETTINGS_MTU_DEFAULT;

	if (network && network->state != NETWORK_ABSENT)
		return network_is_bridged(network) ? network : NULL;
	if (records_load_network(registry->records, name, &record) < 0 ||
		record.settings.mode != NETWORK_MODE_BRIDGED ||
		(!network && registry_add(registry, name, NULL, &network) < 0))
		return NULL;
	network->settings = record.settings;
	network->uid = record.uid;
	(void)platform_read_uplink(registry->platform, record.settings.uplink, &mtu);
	set_link(network, mtu);
	network_enter(network, NETWORK_RUNNING);
	log_info(network->tag, "adopted on interface %s of the host", network->settings.uplink);
	return network;
}

void bridged_end_lease(struct registry *registry, uint32_t number)
{
	/* Else every connection would take its interface along when the broker ends. */
	if (!registry->is_stopping && interface_find(registry, number))
		interface_revoke(registry, number, "the connection that had it made has ended");
}
