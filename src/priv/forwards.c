#include "priv/forwards.h"

#include "priv/forwarding.h"
#include "priv/forwards-flows.h"
#include "priv/nft.h"
#include "priv/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK)

/* The forwards of one call. */
struct list {
	struct verb_forward *entries; /* owned */
	size_t count;
	struct bridge_facts *bridges; /* owned */
	size_t bridges_count;
};

static void list_done(struct list *list)
{
	free(list->entries);
	free(list->bridges);
}
#define cleanup_list __attribute__((__cleanup__(list_done)))

/* Only memory has seals: nothing that could make a reader wait. */
static int check_sealed(int file, struct verb_outcome *outcome)
{
	int seals = fcntl(file, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS)
		return outcome_fail(
			outcome, -EINVAL, "forwards come in a memory file that is sealed");
	return 0;
}

static int read_entries(int file, size_t count, struct list *list, struct verb_outcome *outcome)
{
	size_t size = count * sizeof(*list->entries);
	int error = check_sealed(file, outcome);

	if (error)
		return error;
	list->entries = calloc(count + 1, sizeof(*list->entries));
	if (!list->entries)
		return outcome_fail(outcome, -ENOMEM, "memory is out");
	if (pread(file, list->entries, size, 0) != (ssize_t)size)
		return outcome_fail(outcome, -EINVAL,
			"a memory file has not the %zu forwards it should", count);
	list->count = count;
	return forwards_check(list->entries, count, outcome);
}

/*
 * Keeps, in place, those that lead into our networks and take nothing from their VMs. Networks come
 * and go while the front makes its list: the others are no mistake of its.
 */
static void select_entries(struct list *list)
{
	size_t kept = 0;

	for (size_t i = 0; i < list->count; i++) {
		const struct verb_forward *forward = &list->entries[i];

		if (forwards_find_bridge(forward, list->bridges, list->bridges_count) &&
			!forwards_takes_service(forward, list->bridges, list->bridges_count))
			list->entries[kept++] = *forward;
	}
	list->count = kept;
}

static int set_switch(const char *bridge, const char *key, char value, struct verb_outcome *outcome)
{
	int error = sysctl_set_interface("ipv4", bridge, key, value);

	/* It may have gone since it was listed. */
	if (error && error != -ENOENT)
		return outcome_fail(outcome, error, "setting %s of %s to %c: %s", key, bridge,
			value, strerror(-error));
	return 0;
}

static bool leads_to(const struct list *list, const struct verb_forward *forward,
	const struct bridge_facts *bridge)
{
	return forwards_find_bridge(forward, list->bridges, list->bridges_count) == bridge;
}

/* Whether connections to 127.0.0.0/8 are led there. */
static bool needs_loopback(const struct list *list, const struct bridge_facts *bridge)
{
	for (size_t i = 0; i < list->count; i++)
		if (leads_to(list, &list->entries[i], bridge) &&
			forwards_takes_loopback(&list->entries[i]))
			return true;
	return false;
}

static bool has_target_on(const struct list *list, const struct bridge_facts *bridge)
{
	for (size_t i = 0; i < list->count; i++)
		if (leads_to(list, &list->entries[i], bridge))
			return true;
	return false;
}

/* Before the rules that make them harmless go. */
static int close_switches(const struct list *list, struct verb_outcome *outcome)
{
	int error = 0;

	for (size_t i = 0; i < list->bridges_count && !error; i++) {
		const struct bridge_facts *bridge = &list->bridges[i];

		if (!needs_loopback(list, bridge))
			error = set_switch(bridge->name, "route_localnet", '0', outcome);
		if (!error && list->count == 0 && bridge->mode != NETWORK_MODE_SHARED)
			error = set_switch(bridge->name, "forwarding", '0', outcome);
	}
	return error;
}

/*
 * Connections to 127.0.0.1 leave by, and come back over, a bridge that routes that address. VMs of
 * networks without a router reach forwards, too, and answer over them: their bridges have to pass
 * packets on; the rules, which are in force by now, stop all others.
 */
static int open_switches(struct links *links, const struct list *list, struct verb_outcome *outcome)
{
	bool needs_uplinks = false;
	int error = 0;

	for (size_t i = 0; i < list->bridges_count && !error; i++) {
		const struct bridge_facts *bridge = &list->bridges[i];

		error = set_switch(bridge->name, "forwarding", '1', outcome);
		if (!error && needs_loopback(list, bridge))
			error = set_switch(bridge->name, "route_localnet", '1', outcome);
		needs_uplinks = needs_uplinks || (bridge->mode != NETWORK_MODE_SHARED &&
							 has_target_on(list, bridge));
	}
	return !error && needs_uplinks
		       ? forwarding_apply(links, list->bridges, list->bridges_count, outcome)
		       : error;
}

int forwards_apply(struct links *links, int file, const struct verb_apply_forwards *call,
	struct verb_outcome *outcome)
{
	cleanup_list struct list list = {.count = 0};
	int error = read_entries(file, call->count, &list, outcome);

	if (error)
		return error;
	error = links_list_bridges(links, &list.bridges, &list.bridges_count);
	if (error)
		return outcome_fail(outcome, error, "reading links: %s", strerror(-error));
	select_entries(&list);
	error = close_switches(&list, outcome);
	if (!error)
		error = nft_apply(forwards_build_commands(links_instance(links), list.entries,
					  list.count, list.bridges, list.bridges_count),
			"nftables", outcome);
	if (!error && list.count > 0)
		error = open_switches(links, &list, outcome);
	if (!error && call->ends_flows)
		error = forwards_end_flows(
			list.entries, list.count, list.bridges, list.bridges_count, outcome);
	if (!error)
		outcome->value = (uint32_t)list.count;
	return error;
}
