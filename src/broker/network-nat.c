#include "broker/network-nat.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <string.h>

static void handle_timer(void *context)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error = network_nat_settle(context, detail);

	/* A network that starts tries again, and says so to those who wait for it. */
	if (error)
		log_warn("main", "NAT rules could not be changed: %s",
			*detail ? detail : strerror(-error));
}

int network_nat_init(struct registry *registry)
{
	registry->nat_is_due = false;
	return platform_timer_new(registry->platform, handle_timer, registry, &registry->nat_timer);
}

void network_nat_done(struct registry *registry)
{
	platform_timer_free(take_ptr(registry->nat_timer));
}

void network_nat_want(struct registry *registry)
{
	registry->nat_is_due = true;
	platform_timer_start(registry->nat_timer, 0);
}

int network_nat_settle(struct registry *registry, char *detail)
{
	int error = registry->nat_is_due ? platform_apply_nat(registry->platform, detail) : 0;

	platform_timer_stop(registry->nat_timer);
	registry->nat_is_due = error != 0;
	return error;
}

void registry_apply_nat(struct registry *registry, const char *reason)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	/* A network has just come: the change that takes it in is no repair. */
	bool was_due = registry->nat_is_due;
	int error;

	/* Without bridges there is nothing to keep up, and its removal would be reported again. */
	if (!registry_has_bridges(registry))
		return;
	registry->nat_is_due = true;
	error = network_nat_settle(registry, detail);
	if (error)
		log_error("main", "NAT rules could not be applied (%s): %s", reason,
			*detail ? detail : strerror(-error));
	else if (!was_due)
		log_info("main", "applied the NAT rules again: %s", reason);
}
