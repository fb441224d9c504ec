#include "priv/nat.h"

#include "priv/foreign.h"
#include "priv/nft.h"
#include "priv/sysctl.h"

#include <errno.h>
#include <string.h>

static int apply_rules(uint32_t instance, const struct bridge_facts *bridges, size_t bridges_count,
	struct verb_outcome *outcome)
{
	cleanup_free char *commands = nat_build_commands(instance, bridges, bridges_count);
	char complaint[NFT_COMPLAINT_SIZE];
	int error;

	if (!commands)
		return outcome_fail(outcome, -ENOMEM, "memory is out");
	error = nft_run(commands, complaint);
	if (error)
		return outcome_fail(outcome, error, "nftables: %s", complaint);
	return 0;
}

static int set_forwarding(const char *interface_name, struct verb_outcome *outcome)
{
	int error = sysctl_set_interface("ipv4", interface_name, "forwarding", '1');

	/* It may have gone since it was listed. */
	if (error && error != -ENOENT)
		return outcome_fail(outcome, error, "turning on forwarding on %s: %s",
			interface_name, strerror(-error));
	return 0;
}

static int set_forwarding_on_bridges(const struct bridge_facts *bridges, size_t bridges_count,
	bool *ret_any_shared, struct verb_outcome *outcome)
{
	bool any_shared = false;

	for (size_t i = 0; i < bridges_count; i++) {
		int error;

		if (bridges[i].mode != NETWORK_MODE_SHARED)
			continue;
		error = set_forwarding(bridges[i].name, outcome);
		if (error)
			return error;
		any_shared = true;
	}
	*ret_any_shared = any_shared;
	return 0;
}

/* Replies come in by the uplink, and the kernel asks the interface a packet came in by. */
int nat_open_uplinks(struct links *links, struct verb_outcome *outcome)
{
	cleanup_free char(*uplinks)[IFNAMSIZ] = NULL;
	size_t uplinks_count;
	int error = links_list_uplinks(links, &uplinks, &uplinks_count);

	if (error)
		return outcome_fail(outcome, error, "reading routes: %s", strerror(-error));
	for (size_t i = 0; i < uplinks_count && !error; i++)
		error = set_forwarding(uplinks[i], outcome);
	return error;
}

int nat_apply(struct links *links, struct verb_outcome *outcome)
{
	cleanup_free struct bridge_facts *bridges = NULL;
	size_t bridges_count;
	bool any_shared;
	int error;

	error = links_list_bridges(links, &bridges, &bridges_count);
	if (error)
		return outcome_fail(outcome, error, "reading links: %s", strerror(-error));
	/* The rules come first: without them forwarding would open networks that are to be closed.
	 */
	error = apply_rules(links_instance(links), bridges, bridges_count, outcome);
	if (!error)
		error = set_forwarding_on_bridges(bridges, bridges_count, &any_shared, outcome);
	if (!error && any_shared)
		error = nat_open_uplinks(links, outcome);
	if (!error)
		error = foreign_apply(links_instance(links), bridges, bridges_count, outcome);
	return error;
}
