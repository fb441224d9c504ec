#include "broker/interface-lease.h"

#include "base/cleanup.h"
#include "broker/events.h"
#include "broker/vm-names.h"

#include <string.h>

static void tell(const struct interface *interface, const char *what, const char *name)
{
	const struct broker_lease lease = {
		.mac = interface->record.mac,
		.address = interface->lease_address,
		.hostname = name,
	};

	events_tell(interface->network->registry, &(struct event){
							  .kind = BROKER_EVENT_LEASE,
							  .what = what,
							  .network = interface->network->name,
							  .lease = &lease,
							  .has_owner = true,
							  .owner = interface->record.uid,
						  });
}

static void end(struct interface *interface, const char *what)
{
	tell(interface, what, vm_names_get(interface));
	interface->lease_address.s_addr = 0;
}

static void handle_end(void *context)
{
	end(context, "expired");
}

void interface_lease_take(
	struct network *network, struct mac mac, struct in_addr address, const char *name)
{
	struct interface *interface = interface_find_mac(network, mac);
	bool is_renewed;

	if (!interface)
		return;
	is_renewed = interface->lease_address.s_addr == address.s_addr;
	interface->lease_address = address;
	/* Without a timer its end is not told, which is no reason to refuse anything. */
	if (!interface->lease_timer && platform_timer_new(network->registry->platform, handle_end,
					       interface, &interface->lease_timer) < 0)
		interface->lease_timer = NULL;
	if (interface->lease_timer)
		platform_timer_start(
			interface->lease_timer, (uint64_t)network->settings.lease_s * 1000);
	tell(interface, is_renewed ? "renewed" : "given", name);
}

void interface_lease_release(struct network *network, struct mac mac, struct in_addr address)
{
	struct interface *interface = interface_find_mac(network, mac);

	if (!interface || interface->lease_address.s_addr != address.s_addr)
		return;
	if (interface->lease_timer)
		platform_timer_stop(interface->lease_timer);
	end(interface, "released");
}

void interface_lease_done(struct interface *interface)
{
	platform_timer_free(take_ptr(interface->lease_timer));
}
