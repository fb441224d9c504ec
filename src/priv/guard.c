#include "priv/guard.h"

#include "priv/nft.h"

#include <errno.h>
#include <string.h>

#define WHAT "nftables, bridge family"

int guard_apply(struct links *links, struct verb_outcome *outcome)
{
	cleanup_free struct bridge_facts *bridges = NULL;
	cleanup_free struct tap_facts *taps = NULL;
	struct guard_facts facts = {.instance = links_instance(links)};
	int error = links_list_bridges(links, &bridges, &facts.bridges_count);

	if (!error)
		error = links_list_taps(links, &taps, &facts.taps_count);
	if (error)
		return outcome_fail(outcome, error, "reading links: %s", strerror(-error));
	facts.bridges = bridges;
	facts.taps = taps;
	return nft_apply(guard_build_commands(&facts), WHAT, outcome);
}

/*
 * The table is as it was left nearly always. Where it is not - the first bridge, somebody's flush -
 * nftables refuses, and all is made anew.
 */
static int add(struct links *links, const struct guard_facts *facts, struct verb_outcome *outcome)
{
	if (nft_apply(guard_build_additions(facts), WHAT, outcome) == 0)
		return 0;
	return guard_apply(links, outcome);
}

int guard_add_bridge(
	struct links *links, const struct bridge_facts *bridge, struct verb_outcome *outcome)
{
	const struct guard_facts facts = {
		.instance = links_instance(links),
		.bridges = bridge,
		.bridges_count = 1,
	};

	return add(links, &facts, outcome);
}

int guard_add_tap(struct links *links, const struct tap_facts *tap, struct verb_outcome *outcome)
{
	const struct guard_facts facts = {
		.instance = links_instance(links),
		.taps = tap,
		.taps_count = 1,
	};

	if (!tap->port.isolated && !tap->port.locked)
		return 0;
	return add(links, &facts, outcome);
}
