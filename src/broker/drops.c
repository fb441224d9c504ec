#include "broker/drops.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/events.h"

#include <inttypes.h>
#include <string.h>

static void tell(const struct interface *interface, uint64_t drops)
{
	char text[96];

	snprintf(text, sizeof(text), "%" PRIu64 " frames were dropped within %d s", drops,
		DROPS_PERIOD_MS / 1000);
	events_tell(interface->network->registry, &(struct event){
							  .kind = BROKER_EVENT_WARNING,
							  .what = "drops",
							  .network = interface->network->name,
							  .interface = interface,
							  .has_owner = true,
							  .owner = interface->record.uid,
							  .text = text,
						  });
}

static void take_traffic(void *context, uint32_t number, const struct platform_counters *host_to_vm,
	const struct platform_counters *vm_to_host)
{
	struct registry *registry = context;
	struct interface *interface = interface_find(registry, number);
	uint64_t drops = host_to_vm->drops + vm_to_host->drops;

	if (!interface)
		return;
	if (interface->drops_round == registry->drops_round && drops > interface->drops)
		tell(interface, drops - interface->drops);
	/* Known from this look to the next one, if nobody ceases to listen meanwhile. */
	interface->drops_round = registry->drops_round;
	interface->drops = drops;
}

static void look(void *context)
{
	struct registry *registry = context;
	int error;

	if (registry->drops_listeners == 0)
		return;
	error = platform_count_traffic(registry->platform, take_traffic, registry);
	if (error < 0)
		log_debug("main", "interfaces could not be counted: %s", strerror(-error));
	platform_timer_start(registry->drops_timer, DROPS_PERIOD_MS);
}

void drops_listen(struct registry *registry)
{
	/* Without a timer this is not told, which is no reason to refuse the rest. */
	if (!registry->drops_timer &&
		platform_timer_new(registry->platform, look, registry, &registry->drops_timer) < 0)
		return;
	if (registry->drops_listeners++ > 0)
		return;
	/* What was counted for earlier listeners is old. */
	registry->drops_round++;
	look(registry);
}

void drops_unlisten(struct registry *registry)
{
	if (registry->drops_listeners > 0 && --registry->drops_listeners == 0)
		platform_timer_stop(registry->drops_timer);
}
