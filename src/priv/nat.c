#include "priv/nat.h"

#include "priv/foreign.h"
#include "priv/forwarding.h"
#include "priv/nft.h"

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

int nat_apply(struct links *links, struct verb_outcome *outcome)
{
	cleanup_free struct bridge_facts *bridges = NULL;
	size_t bridges_count;
	int error;

	error = links_list_bridges(links, &bridges, &bridges_count);
	if (error)
		return outcome_fail(outcome, error, "reading links: %s", strerror(-error));
	/* The rules come first: without them forwarding would open networks that are to be closed.
	 */
	error = apply_rules(links_instance(links), bridges, bridges_count, outcome);
	if (!error)
		error = forwarding_apply(links, bridges, bridges_count, outcome);
	if (!error)
		error = foreign_apply(links_instance(links), bridges, bridges_count, outcome);
	return error;
}
