#include "broker/network-config.h"

#include "base/log.h"
#include "broker/configured-reservations.h"
#include "broker/forward.h"
#include "broker/network-adhoc.h"
#include "broker/network-start.h"

#include <string.h>

/* A pinned network that could not be made is tried again after this. */
#define PIN_RETRY_MS 10000

bool network_is_pinned(const struct network *network)
{
	return network->config && network->config->pinned;
}

void registry_start_pinned_later(struct registry *registry)
{
	platform_timer_start(registry->pin_timer, PIN_RETRY_MS);
}

void registry_start_pinned(struct registry *registry)
{
	for (struct network *network = registry->networks; network; network = network->next) {
		struct failure failure;

		if (!network_is_pinned(network) || *network->config->error ||
			network->state != NETWORK_ABSENT)
			continue;
		if (network_start(network, 0, &failure) == 0)
			continue;
		log_error(network->tag, "is pinned and could not be made: %s", failure.reason);
		registry_start_pinned_later(registry);
	}
}

void network_report_differences(const struct network *network)
{
	char keys[SETTINGS_DIFFERENCES_SIZE];

	if (!network->config || *network->config->error ||
		!network_settings_compare(&network->settings, &network->config->settings, keys))
		return;
	log_info(network->tag,
		"goes on with what it was made with; configured otherwise, and so when it is next "
		"made: %s",
		keys);
}

static void apply_reservations(struct network *network)
{
	int error = 0;

	if (configured_reservations_apply(network))
		error = network_save_memory(network);
	/* A name may be all that is new. */
	if (!error)
		error = network_write_hosts(network);
	if (error)
		log_error(network->tag, "its configured reservations could not be written: %s",
			strerror(-error));
}

static void apply(struct network *network)
{
	if (network->state == NETWORK_ABSENT)
		return;
	if (!network->config && !network_is_adhoc(network))
		log_info(network->tag, "is not configured any more; it stays for those who use it");
	network_report_differences(network);
	apply_reservations(network);
	network_settle(network);
}

static void add_new(struct registry *registry)
{
	for (size_t i = 0; i < registry->config->networks_count; i++) {
		const struct config_network *config = &registry->config->networks[i];
		struct network *network;

		if (!registry_find_entry(registry, config->name) &&
			registry_add(registry, config->name, config, &network) < 0)
			log_error("main", "network %s: memory is out", config->name);
	}
}

struct config *registry_set_config(struct registry *registry, struct config *config)
{
	struct config *old = registry->config;

	configured_reservations_init(config, registry->instance);
	registry->config = config;
	/* All, before anything acts on one of them. */
	for (struct network *network = registry->networks; network; network = network->next)
		network->config = config_find(config, network->name);
	add_new(registry);
	for (struct network *network = registry->networks; network; network = network->next)
		apply(network);
	registry_forget_soon(registry);
	registry_start_pinned(registry);
	forwards_configure(registry->forwards);
	if (registry->changed)
		registry->changed(registry->context);
	return old;
}
