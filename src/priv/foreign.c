#include "priv/foreign.h"

#include "priv/foreign-chains.h"
#include "priv/nfnl.h"
#include "priv/rtnl.h"

#include <errno.h>
#include <string.h>

struct opener {
	struct nl_sock *socket;
	uint32_t instance;
	const struct bridge_facts *bridges;
	size_t bridges_count;
	struct verb_outcome *outcome;
};

#define cleanup_rules __attribute__((__cleanup__(foreign_rules_done)))

/* What somebody else took away meanwhile, or keeps to himself, is no failure of ours. */
static int commit(struct opener *opener, const struct foreign_chain *chain, const char *what,
	struct nl_msg *change)
{
	int error = change ? nfnl_commit(opener->socket, change) : -ENOMEM;

	if (!error || error == -ENOENT || error == -EPERM)
		return 0;
	return outcome_fail(opener->outcome, error, "%s a rule in chain %.32s of table %.32s: %s",
		what, chain->name, chain->table, strerror(-error));
}

static bool is_named(const struct foreign_rules *rules, const char *comment, size_t before)
{
	for (size_t i = 0; i < before; i++)
		if (strcmp(rules->rules[i].comment, comment) == 0)
			return true;
	return false;
}

static bool is_wanted(
	const struct opener *opener, const struct foreign_chain *chain, const char *comment)
{
	char wanted[FOREIGN_COMMENT_SIZE];

	for (size_t i = 0; chain->wanted && i < opener->bridges_count; i++)
		for (size_t opening = 0; opening < foreign_openings_count(); opening++) {
			foreign_comment(opener->instance, opener->bridges[i].name, opening, wanted);
			if (foreign_opening_fits(opening, chain) && strcmp(wanted, comment) == 0)
				return true;
		}
	return false;
}

static int remove_rules(
	struct opener *opener, const struct foreign_chain *chain, const struct foreign_rules *rules)
{
	int error = 0;

	for (size_t i = 0; i < rules->count && !error; i++) {
		const struct foreign_rule *rule = &rules->rules[i];

		if (is_wanted(opener, chain, rule->comment) && !is_named(rules, rule->comment, i))
			continue;
		error = commit(
			opener, chain, "deleting", foreign_delete_message(chain, rule->handle));
	}
	return error;
}

static int add_rules(struct opener *opener, const struct foreign_chain *chain,
	const struct foreign_rules *rules, const char *bridge)
{
	char comment[FOREIGN_COMMENT_SIZE];
	int error = 0;

	for (size_t opening = 0; opening < foreign_openings_count() && !error; opening++) {
		foreign_comment(opener->instance, bridge, opening, comment);
		if (!foreign_opening_fits(opening, chain) || is_named(rules, comment, rules->count))
			continue;
		error = commit(opener, chain, "adding",
			foreign_insert_message(opener->instance, chain, bridge, opening));
	}
	return error;
}

static int settle_chain(struct opener *opener, const struct foreign_chain *chain)
{
	cleanup_rules struct foreign_rules rules = {0};
	int error = foreign_list_rules(opener->socket, opener->instance, chain, &rules);

	if (error == -ENOENT)
		return 0;
	if (error)
		return outcome_fail(opener->outcome, error,
			"reading chain %.32s of table %.32s: %s", chain->name, chain->table,
			strerror(-error));
	error = remove_rules(opener, chain, &rules);
	for (size_t i = 0; chain->wanted && i < opener->bridges_count && !error; i++)
		error = add_rules(opener, chain, &rules, opener->bridges[i].name);
	return error;
}

int foreign_apply(uint32_t instance, const struct bridge_facts *bridges, size_t bridges_count,
	struct verb_outcome *outcome)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = NULL;
	cleanup_free struct foreign_chain *chains = NULL;
	struct opener opener = {
		.instance = instance,
		.bridges = bridges,
		.bridges_count = bridges_count,
		.outcome = outcome,
	};
	size_t chains_count = 0;
	int error = nfnl_open(&socket);

	if (!error)
		error = foreign_list_chains(socket, &chains, &chains_count);
	if (error)
		return outcome_fail(
			outcome, error, "reading the host's firewalls: %s", strerror(-error));
	opener.socket = socket;
	for (size_t i = 0; i < chains_count && !error; i++)
		error = settle_chain(&opener, &chains[i]);
	return error;
}
