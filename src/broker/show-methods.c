#include "broker/show-methods.h"

#include "base/cleanup.h"
#include "broker/access.h"
#include "broker/helper-counters.h"
#include "broker/interface.h"
#include "broker/leases.h"
#include "broker/statistics.h"

#include <assert.h>
#include <string.h>

static void fail_invalid(struct peer *peer, const char *reason)
{
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_INVALID_REQUEST, "%s", reason);
	peer_fail(peer, &failure);
}

static const char *const state_names[] = {
	[NETWORK_ABSENT] = "absent",
	[NETWORK_STARTING] = "starting",
	[NETWORK_RUNNING] = "running",
	[NETWORK_LINGERING] = "lingering",
};
static_assert(array_length(state_names) == NETWORK_STATE_COUNT, "every state has a name");

static struct broker_network_settings describe_settings(const struct network *network)
{
	const struct network_settings *settings =
		network->state == NETWORK_ABSENT && network->config ? &network->config->settings
								    : &network->settings;

	return (struct broker_network_settings){
		.dhcp = settings->dhcp,
		.dns = settings->dns,
		.router_advertisement = settings->router_advertisement && settings->ipv6,
		.lease_s = settings->lease_s,
		.isolation = settings->isolation,
		.lock_mac = settings->lock_mac,
		.pinned = network->config && network->config->pinned,
	};
}

static json_t *describe(const struct network *network)
{
	struct broker_network_details details = {
		.state = state_names[network->state],
		.problem = network->config ? network->config->error : "",
		.settings = describe_settings(network),
	};
	struct broker_network described;

	for (const struct network_hold *hold = network->holds; hold; hold = hold->next)
		details.connections++;
	for (const struct interface *found = network->interfaces; found; found = found->next)
		details.interfaces++;
	network_describe(network, &described);
	return network_described_encode(&described, &details);
}

void show_handle_describe_network(
	struct peer *peer, const struct registry *registry, const struct varlink_call *call)
{
	struct describe_network_call asked;
	const struct network *network;
	char reason[BROKER_REASON_SIZE];
	struct failure failure;
	int error;

	if (describe_network_decode(call->parameters, &asked, reason) < 0) {
		fail_invalid(peer, reason);
		return;
	}
	network = registry_find(registry, asked.network);
	error = network ? access_check(network, &peer->credentials, &failure)
			: registry_fail_unknown(
				  registry, asked.network, &peer->credentials, &failure);
	if (error)
		peer_fail(peer, &failure);
	else
		peer_reply(peer, describe(network), NULL, 0);
}

void show_handle_list_leases(
	struct peer *peer, const struct registry *registry, const struct varlink_call *call)
{
	struct list_leases_call asked;
	char reason[BROKER_REASON_SIZE];

	if (list_leases_decode(call->parameters, &asked, reason) < 0)
		fail_invalid(peer, reason);
	else
		peer_reply(peer, leases_make_page(registry, peer->uid, asked.after), NULL, 0);
}

void show_handle_list_statistics(struct peer *peer, const struct registry *registry,
	const struct varlink_call *call, struct statistics_query **slot)
{
	struct list_statistics_call asked;
	char reason[BROKER_REASON_SIZE];

	if (list_statistics_decode(call->parameters, &asked, reason) < 0)
		fail_invalid(peer, reason);
	else
		statistics_start(peer, registry, asked.after, slot);
}

static int open_counters(const struct registry *registry, uid_t uid, const char *name,
	int *ret_listener, struct failure *failure)
{
	const struct interface *interface = interface_find_own(registry, uid, name);
	int error;

	if (!interface)
		return failure_set(failure, BROKER_ERROR_NOT_FOUND,
			"you have no interface \"%s\"; vmnetctl interfaces lists them", name);
	error = helper_counters_bind(
		records_interfaces_directory(registry->records), interface->number, ret_listener);
	if (!error)
		return 0;
	return failure_set(failure, BROKER_ERROR_INTERNAL, "no socket for the counters of %s: %s",
		name, strerror(-error));
}

void show_handle_serve_counters(
	struct peer *peer, const struct registry *registry, const struct varlink_call *call)
{
	struct serve_counters_call asked;
	char reason[BROKER_REASON_SIZE];
	struct failure failure;
	int listener;

	if (serve_counters_decode(call->parameters, &asked, reason) < 0)
		fail_invalid(peer, reason);
	else if (open_counters(registry, peer->uid, asked.interface_name, &listener, &failure) < 0)
		peer_fail(peer, &failure);
	else
		peer_reply(peer, served_counters_encode(0), &listener, 1);
}
