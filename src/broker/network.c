#include "broker/network.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/access.h"
#include "broker/bridged.h"
#include "broker/configured-reservations.h"
#include "broker/events.h"
#include "broker/forward.h"
#include "broker/host-names.h"
#include "broker/interface-lease.h"
#include "broker/interface.h"
#include "broker/network-adhoc.h"
#include "broker/network-config.h"
#include "broker/network-nat.h"
#include "broker/network-obstacles.h"
#include "broker/network-start.h"
#include "broker/resolvers.h"
#include "broker/vm-names.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* A bridge that could not be removed is tried again not sooner than this, even without idle time.
 */
#define RETRY_MS 1000

static bool has_users(const struct network *network)
{
	return network->holds || network->interfaces || network_is_pinned(network);
}

const char *network_state_to_text(enum network_state state)
{
	static const char *const names[] = {
		[NETWORK_ABSENT] = "absent",
		[NETWORK_STARTING] = "starting",
		[NETWORK_RUNNING] = "running",
		[NETWORK_LINGERING] = "lingering",
	};
	static_assert(array_length(names) == NETWORK_STATE_COUNT, "one name a state");

	return names[state];
}

void network_enter(struct network *network, enum network_state state)
{
	if (network->state == state)
		return;
	log_debug(network->tag, "%s -> %s", network_state_to_text(network->state),
		network_state_to_text(state));
	network->state = state;
	if (state == NETWORK_LINGERING)
		platform_timer_start(network->idle_timer, network->registry->idle_timeout_ms);
	else
		platform_timer_stop(network->idle_timer);
	if (state == NETWORK_ABSENT && !network->config)
		registry_forget_soon(network->registry);
	if (state == NETWORK_ABSENT && network_is_pinned(network))
		registry_start_pinned_later(network->registry);
	events_tell_network(network);
}

static void tell_change(struct registry *registry)
{
	forwards_update(registry->forwards, NULL);
	if (registry->changed)
		registry->changed(registry->context);
}

/* What is left stays as usable as it was. */
static void retry_later(struct network *network, const char *reason)
{
	uint64_t idle_ms = network->registry->idle_timeout_ms;

	log_warn(network->tag, "bridge %s could not be removed, will be tried again: %s",
		network->link.bridge, reason);
	network_enter(network, NETWORK_LINGERING);
	platform_timer_start(network->idle_timer, idle_ms > RETRY_MS ? idle_ms : RETRY_MS);
}

static void stop_network(struct network *network)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	struct registry *registry = network->registry;
	int error;

	if (network_is_bridged(network)) {
		bridged_stop(network);
		tell_change(registry);
		return;
	}
	error = platform_destroy_network(registry->platform, network->name, detail);
	if (error) {
		retry_later(network, *detail ? detail : strerror(-error));
		return;
	}
	dhcp_stop(&network->dhcp);
	network_start_undo(network);
	network_enter(network, NETWORK_ABSENT);
	log_info(network->tag, "removed bridge %s", network->link.bridge);
	tell_change(registry);
}

void network_settle(struct network *network)
{
	if (network->state == NETWORK_RUNNING || network->state == NETWORK_LINGERING)
		network_enter(network, has_users(network) ? NETWORK_RUNNING : NETWORK_LINGERING);
}

static void handle_idle(void *context)
{
	struct network *network = context;

	if (network->state != NETWORK_LINGERING)
		return;
	log_info(network->tag, "had no user for %llu s",
		(unsigned long long)(network->registry->idle_timeout_ms / 1000));
	stop_network(network);
}

/* Restarts the search after every call-back: it may release any hold of its peer. */
static struct network_hold *find_waiting(const struct network *network)
{
	for (struct network_hold *hold = network->holds; hold; hold = hold->next)
		if (!hold->granted)
			return hold;
	return NULL;
}

static void unlink_hold(struct network_hold *hold)
{
	struct network_hold **link = &hold->network->holds;

	while (*link != hold)
		link = &(*link)->next;
	*link = hold->next;
	hold->network = NULL;
}

static void fail_waiting(struct network *network, const struct failure *failure)
{
	network->last_failure = *failure;
	for (struct network_hold *hold; (hold = find_waiting(network));) {
		unlink_hold(hold);
		hold->done(hold->context, &network->last_failure);
	}
}

static void fail_nat(struct network *network, const char *reason)
{
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_CREATE_FAILURE,
		"network \"%s\": NAT rules could not be applied: %s", network->name, reason);
	network->last_failure = failure;
	events_tell_warning(network, "nat", failure.reason);
	stop_network(network);
	fail_waiting(network, &failure);
}

static void handle_serving(void *context)
{
	struct network *network = context;
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error = network_nat_settle(network->registry, detail);

	if (error && network->state == NETWORK_STARTING) {
		fail_nat(network, *detail ? detail : strerror(-error));
		return;
	}
	host_names_announce(network);
	if (network->state == NETWORK_STARTING) {
		network_enter(network, has_users(network) ? NETWORK_RUNNING : NETWORK_LINGERING);
		log_info(network->tag, "serves on bridge %s", network->link.bridge);
		*network->last_failure.reason = '\0';
	}
	for (struct network_hold *hold; (hold = find_waiting(network));) {
		hold->granted = true;
		hold->done(hold->context, NULL);
	}
}

static void handle_failed(void *context, const char *reason)
{
	struct network *network = context;
	struct failure failure;

	network_explain_failure(network, reason, &failure);
	network->last_failure = failure;
	events_tell_warning(network, "dhcp", failure.reason);
	if (network->state == NETWORK_STARTING)
		stop_network(network);
	fail_waiting(network, &failure);
	network_settle(network);
}

static void handle_named(void *context, struct mac mac, const char *name)
{
	vm_names_take_told(context, mac, name);
}

static void handle_leased(void *context, struct mac mac, struct in_addr address, const char *name)
{
	interface_lease_take(context, mac, address, name);
}

static void handle_released(void *context, struct mac mac, struct in_addr address)
{
	interface_lease_release(context, mac, address);
}

static void handle_warned(void *context, const char *text)
{
	events_tell_warning(context, "dhcp", text);
}

static void handle_complained(void *context, const char *text)
{
	events_tell_complaint(context, text);
}

static const struct dhcp_owner dhcp_owner = {
	.serving = handle_serving,
	.failed = handle_failed,
	.named = handle_named,
	.leased = handle_leased,
	.released = handle_released,
	.warned = handle_warned,
	.complained = handle_complained,
};

void network_free(struct network *network)
{
	dhcp_done(&network->dhcp);
	platform_timer_free(network->idle_timer);
	interface_forget_all(network);
	reservations_done(&network->memory.reservations);
	free(network->hosts);
	free(network->names);
	free(network->resolvers);
	free(network);
}
DEFINE_CLEANUP(struct network, network_free)

static void load_memory(struct network *network)
{
	int error =
		records_load_memory(network->registry->records, network->name, &network->memory);

	if (error && error != -ENOENT)
		log_warn(network->tag, "its subnet and reservations could not be read back: %s%s",
			strerror(-error), error == -EBADMSG ? "; the record was set aside" : "");
}

int network_save_memory(struct network *network)
{
	int error =
		records_save_memory(network->registry->records, network->name, &network->memory);

	network->memory_is_unsaved = error != 0;
	return error;
}

int registry_add(struct registry *registry, const char *name, const struct config_network *config,
	struct network **ret_network)
{
	cleanup_with(network_free) struct network *network = calloc(1, sizeof(*network));
	struct network **link = &registry->networks;
	int error;

	if (!network)
		return -ENOMEM;
	network->registry = registry;
	network->config = config;
	snprintf(network->name, sizeof(network->name), "%s", name);
	snprintf(network->tag, sizeof(network->tag), "network %s", name);
	error = dhcp_init(&network->dhcp, registry->platform, network->name, &dhcp_owner, network);
	if (!error)
		error = platform_timer_new(
			registry->platform, handle_idle, network, &network->idle_timer);
	if (error)
		return error;
	load_memory(network);
	while (*link && strcmp((*link)->name, name) < 0)
		link = &(*link)->next;
	network->next = *link;
	*link = network;
	*ret_network = take_ptr(network);
	return 0;
}

struct network *registry_find_entry(const struct registry *registry, const char *name)
{
	for (struct network *network = registry->networks; network; network = network->next)
		if (strcmp(network->name, name) == 0)
			return network;
	return NULL;
}

struct network *registry_find(const struct registry *registry, const char *name)
{
	struct network *network = registry_find_entry(registry, name);

	return network && (network->config || network->state != NETWORK_ABSENT) ? network : NULL;
}

bool registry_is_empty(const struct registry *registry)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT)
			return false;
	return true;
}

static void handle_guard_stale(void *context, const char *reason)
{
	registry_apply_guard(context, reason);
}

static void handle_nat_stale(void *context, const char *reason)
{
	registry_apply_nat(context, reason);
}

static void handle_firewalld_refused(void *context, const char *bridge, const char *reason)
{
	registry_tell_refusal(bridge, reason);
}

static void handle_resolvers_changed(void *context)
{
	resolvers_write_all(context);
}

static void handle_names_refused(void *context, const char *name, const char *reason)
{
	host_names_report_refusal(registry_find(context, name), reason);
}

static void handle_uses_changed(void *context)
{
	registry_check_overlaps(context);
}

static void handle_forwards_stale(void *context, const char *reason)
{
	forwards_repair(((struct registry *)context)->forwards, reason);
}

static void handle_interface_tampered(void *context, uint32_t number, const char *tampering)
{
	interface_report_tampering(context, number, tampering);
	interface_revoke(context, number, tampering);
}

static void handle_process_ended(void *context, uint32_t number)
{
	interface_revoke(context, number, "the process that had it made has ended");
}

static void handle_interface_gone(void *context, uint32_t number)
{
	interface_release(context, number);
}

/* For the holds of a network whose bridge has gone. */
static void start_again(struct network *network)
{
	struct failure failure;
	int error;

	if (!network->holds && !network_is_pinned(network))
		return;
	if (network->config ? *network->config->error != '\0' : !network_is_adhoc(network))
		error = failure_set(&failure, BROKER_ERROR_CREATE_FAILURE,
			"network \"%s\" was removed and is not configured", network->name);
	else
		error = network_start(network, network->uid, &failure);
	if (!error)
		return;
	log_error(network->tag, "%s", failure.reason);
	fail_waiting(network, &failure);
}

/* Its interfaces are lost, their TAPs without a bridge; holds are served by a new bridge. */
static void handle_network_gone(void *context, const char *name)
{
	struct registry *registry = context;
	struct network *network = registry_find_entry(registry, name);

	if (!network || network->state == NETWORK_ABSENT)
		return;
	log_warn(network->tag, "bridge %s was removed by somebody else", network->link.bridge);
	events_tell_warning(network, "bridge", "its bridge was removed by somebody else");
	dhcp_stop(&network->dhcp);
	network_start_undo(network);
	network_enter(network, NETWORK_ABSENT);
	/* A new bridge needs the switches of the old one, even where the rules would be the same.
	 */
	forwards_update(registry->forwards, NULL);
	start_again(network);
	tell_change(registry);
}

static void handle_dhcp_line(void *context, const char *name, const char *line)
{
	struct network *network = registry_find_entry(context, name);

	if (network)
		dhcp_take_line(&network->dhcp, line);
}

static void handle_dhcp_ended(void *context, const char *name)
{
	struct network *network = registry_find_entry(context, name);

	if (network)
		dhcp_take_end(&network->dhcp);
}

static const struct platform_events platform_events = {
	.interface_tampered = handle_interface_tampered,
	.interface_gone = handle_interface_gone,
	.process_ended = handle_process_ended,
	.network_gone = handle_network_gone,
	.guard_stale = handle_guard_stale,
	.nat_stale = handle_nat_stale,
	.uses_changed = handle_uses_changed,
	.firewalld_refused = handle_firewalld_refused,
	.forwards_stale = handle_forwards_stale,
	.resolvers_changed = handle_resolvers_changed,
	.names_refused = handle_names_refused,
	.dhcp_line = handle_dhcp_line,
	.dhcp_ended = handle_dhcp_ended,
};

static void start_pinned(void *context)
{
	registry_start_pinned(context);
}

int registry_init(struct registry *registry)
{
	int error = platform_timer_new(
		registry->platform, registry_forget, registry, &registry->forget_timer);

	registry->networks = NULL;
	if (!error)
		error = platform_timer_new(
			registry->platform, start_pinned, registry, &registry->pin_timer);
	if (!error)
		error = network_nat_init(registry);
	if (error)
		return error;
	configured_reservations_init(registry->config, registry->instance);
	for (size_t i = 0; i < registry->config->networks_count; i++) {
		const struct config_network *config = &registry->config->networks[i];
		struct network *network;

		error = registry_add(registry, config->name, config, &network);
		if (error)
			return error;
	}
	platform_set_events(registry->platform, &platform_events, registry);
	return 0;
}

void registry_done(struct registry *registry)
{
	platform_set_events(registry->platform, NULL, NULL);
	platform_timer_free(take_ptr(registry->forget_timer));
	platform_timer_free(take_ptr(registry->pin_timer));
	platform_timer_free(take_ptr(registry->drops_timer));
	network_nat_done(registry);
	while (registry->networks) {
		struct network *network = registry->networks;

		registry->networks = network->next;
		network_free(network);
	}
}

void registry_stop(struct registry *registry)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error;

	registry->is_stopping = true;
	for (struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT && !network->interfaces)
			stop_network(network);
	error = network_nat_settle(registry, detail);
	if (error)
		log_warn("main", "NAT rules of networks that went could not be removed: %s",
			*detail ? detail : strerror(-error));
	registry_forget(registry);
}

/* Says what there is instead, and which file may have meant to say more. */
int registry_fail_unknown(const struct registry *registry, const char *name,
	const struct credentials *user, struct failure *failure)
{
	char names[256] = "";
	size_t used = 0;

	for (const struct network *network = registry->networks; network; network = network->next) {
		if ((!network->config && network->state == NETWORK_ABSENT) ||
			!access_is_granted(network, user))
			continue;
		if (used + strlen(network->name) + sizeof(", ...") > sizeof(names)) {
			snprintf(names + used, sizeof(names) - used, ", ...");
			break;
		}
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
			used ? ", " : "", network->name);
	}
	return failure_set(failure, BROKER_ERROR_NOT_FOUND,
		"network \"%s\" does not exist; there are: %s%s%s", name, names,
		registry->config->broken_count ? "; out of service: " : "",
		registry->config->broken_count ? registry->config->broken[0] : "");
}

static int find_for_use(struct registry *registry, const char *name, const struct credentials *user,
	struct network **ret_network, struct failure *failure)
{
	struct network *network = registry_find(registry, name);

	if (!network) {
		int error = network_find_adhoc(registry, name, user->uid, ret_network, failure);

		return error == -ENOENT ? registry_fail_unknown(registry, name, user, failure)
					: error;
	}
	if (network->state == NETWORK_ABSENT && network->config && *network->config->error)
		return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"network \"%s\" is out of service: %s", name, network->config->error);
	*ret_network = network;
	return 0;
}

int network_acquire(struct registry *registry, const char *name, const struct credentials *user,
	network_hold_done *done, void *context, struct network_hold **ret_hold,
	struct failure *failure)
{
	cleanup_free struct network_hold *hold = calloc(1, sizeof(*hold));
	struct network *network = NULL;
	int error;

	if (!hold)
		return failure_set(failure, BROKER_ERROR_INTERNAL, "memory is out");
	error = find_for_use(registry, name, user, &network, failure);
	if (error)
		return error;
	if (network->state == NETWORK_ABSENT) {
		error = network_start(network, user->uid, failure);
		tell_change(registry);
		if (error)
			return error;
	}
	*hold = (struct network_hold){
		.network = network,
		.next = network->holds,
		.granted = network_is_bridged(network) || network->dhcp.state == DHCP_SERVING,
		.done = done,
		.context = context,
	};
	network->holds = hold;
	network_settle(network);
	*ret_hold = take_ptr(hold);
	return (*ret_hold)->granted ? 1 : 0;
}

void network_release(struct network_hold *hold)
{
	struct network *network;

	if (!hold)
		return;
	network = hold->network;
	if (network) {
		unlink_hold(hold);
		network_settle(network);
	}
	free(hold);
}
