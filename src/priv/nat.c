#include "priv/nat.h"

#include "priv/foreign.h"
#include "priv/forwarding.h"
#include "priv/nft.h"

#include <errno.h>
#include <string.h>

int nat_apply(struct links *links, bool is_rootless, struct verb_outcome *outcome)
{
	cleanup_free struct bridge_facts *bridges = NULL;
	size_t bridges_count;
	int error;

	error = links_list_bridges(links, &bridges, &bridges_count);
	if (error)
		return outcome_fail(outcome, error, "reading links: %s", strerror(-error));
	/* The rules come first: without them forwarding would open networks that are to be closed.
	 */
	error = nft_apply(
		nat_build_commands(links_instance(links), is_rootless, bridges, bridges_count),
		"nftables", outcome);
	if (!error)
		error = forwarding_apply(links, bridges, bridges_count, outcome);
	if (!error)
		error = foreign_apply(links_instance(links), bridges, bridges_count, outcome);
	return error;
}
