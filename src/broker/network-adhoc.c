#include "broker/network-adhoc.h"

#include "base/log.h"
#include "broker/adhoc.h"
#include "broker/bridged.h"
#include "broker/interface.h"
#include "broker/quotas.h"

#include <errno.h>
#include <string.h>

int network_choose(const struct registry *registry, const struct network_choice *choice,
	const struct credentials *user, char name[NETWORK_NAME_SIZE], struct failure *failure)
{
	const struct network *bridged;
	struct address_layout layout;
	enum network_mode mode;
	const char *wrong;

	if (*choice->network)
		return text_copy(name, NETWORK_NAME_SIZE, choice->network);
	if (*choice->shared_interface) {
		int error =
			bridged_find(registry, choice->shared_interface, user, &bridged, failure);

		return error ? error : text_copy(name, NETWORK_NAME_SIZE, bridged->name);
	}
	if (!network_choice_has_range(choice))
		return text_copy(name, NETWORK_NAME_SIZE, choice->mode);
	/* Both have been checked when they were decoded. */
	wrong = address_range_resolve(&choice->range, &layout);
	if (wrong || network_mode_from_text(choice->mode, &mode) < 0)
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST, "%s",
			wrong ? wrong : "unknown mode");
	adhoc_make_name(mode, &layout, name);
	return 0;
}

bool network_is_adhoc(const struct network *network)
{
	struct network_settings ignored;

	return !network->config && adhoc_read_name(network->name, &ignored);
}

int network_find_adhoc(struct registry *registry, const char *name, uid_t uid,
	struct network **ret_network, struct failure *failure)
{
	struct network *network = registry_find_entry(registry, name);
	struct network_settings ignored;
	int error;

	if (!adhoc_read_name(name, &ignored))
		return -ENOENT;
	error = quotas_check_network(registry, uid, failure);
	if (error)
		return error;
	error = network ? 0 : registry_add(registry, name, NULL, &network);
	if (error)
		return failure_set(failure, BROKER_ERROR_INTERNAL, "%s", strerror(-error));
	/* Should it not come to be. */
	registry_forget_soon(registry);
	*ret_network = network;
	return 0;
}

void registry_forget_soon(struct registry *registry)
{
	/* Whoever asks for one after the other must not put it off for ever. */
	if (!registry->forgets_soon)
		platform_timer_start(registry->forget_timer, REGISTRY_FORGET_MS);
	registry->forgets_soon = true;
}

static void forget_memory(struct registry *registry, const char *name)
{
	struct network_settings ignored;
	int error;

	/* Whoever may connect can make up any number of them. */
	if (!adhoc_read_name(name, &ignored))
		return;
	error = records_remove_memory(registry->records, name);
	if (error)
		log_warn("main", "what network %s left could not be removed: %s", name,
			strerror(-error));
}

void registry_forget(void *context)
{
	struct registry *registry = context;
	struct network **link = &registry->networks;

	registry->forgets_soon = false;
	while (*link) {
		struct network *network = *link;

		if (network->config || network->state != NETWORK_ABSENT || network->holds ||
			network->interfaces) {
			link = &network->next;
			continue;
		}
		*link = network->next;
		forget_memory(registry, network->name);
		network_free(network);
	}
}

static bool is_memory_kept(void *context, const char *name)
{
	struct network_settings ignored;

	return registry_find_entry(context, name) || !adhoc_read_name(name, &ignored);
}

static bool is_network_kept(void *context, const char *name)
{
	const struct network *network = registry_find_entry(context, name);

	return network && network->state != NETWORK_ABSENT;
}

static bool is_interface_kept(void *context, uint32_t number)
{
	return interface_find(context, number) != NULL;
}

static void sweep_records(struct registry *registry)
{
	int networks = records_sweep_networks(registry->records, is_network_kept, registry);
	int interfaces = records_sweep_interfaces(registry->records, is_interface_kept, registry);
	int memories = records_sweep_memories(registry->records, is_memory_kept, registry);

	if (networks < 0 || interfaces < 0 || memories < 0)
		log_warn("main", "old records could not be removed: %s",
			strerror(networks < 0     ? -networks
				 : interfaces < 0 ? -interfaces
						  : -memories));
	else if (networks + interfaces > 0)
		log_info("main", "removed records of %d networks and %d interfaces that have gone",
			networks, interfaces);
}

/* What is left of networks whose bridges somebody removed while no broker ran. */
static void drop_old_nat(struct registry *registry)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error =
		registry_is_empty(registry) ? platform_apply_nat(registry->platform, detail) : 0;

	if (error)
		log_warn("main",
			"what earlier networks left in the host's firewall and settings "
			"could not be removed: %s",
			*detail ? detail : strerror(-error));
}

void registry_sweep(struct registry *registry)
{
	sweep_records(registry);
	drop_old_nat(registry);
}
