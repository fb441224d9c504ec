/*
 * One dnsmasq a network: DHCP and DNS. It starts already as the front's user, with the three
 * capabilities it cannot do without and no way to more, and dies with this process.
 */
#pragma once

#include "base/cleanup.h"
#include "priv/links.h"
#include "priv/outcome.h"
#include "priv/verbs.h"

#include <sys/types.h>

/* More networks than this have no DHCP: the limit of what a front gone wild can start. */
#define DNSMASQ_MAX 256

/* Who it is and where its files are. The strings stay the caller's and must outlive the children.
 */
struct dnsmasq_options {
	uid_t uid;
	gid_t gid;
	const char *user_name;   /* its supplementary groups, or NULL for none */
	const char *state_dir;   /* NETWORK.leases; writable by uid */
	const char *runtime_dir; /* networks/NETWORK.hosts, which the front writes */
};

struct dnsmasq_table;

/* Negative errno. options is copied, its strings are not. */
int dnsmasq_table_new(const struct dnsmasq_options *options, struct dnsmasq_table **ret_table);

/* Ends every child and waits for it. Accepts NULL. */
void dnsmasq_table_free(struct dnsmasq_table *table);
DEFINE_CLEANUP(struct dnsmasq_table, dnsmasq_table_free)

/*
 * Starts a network's dnsmasq as wanted, which has been checked, unless it runs. Puts its pid into
 * outcome, and as fds a pidfd and the read end of its log (non-blocking). Returns 0 when it was
 * started, VERB_RUNS_ALREADY when not. -ENOENT: dnsmasq is not installed; -ENOSPC: DNSMASQ_MAX
 * run.
 */
int dnsmasq_start(struct dnsmasq_table *table, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, struct verb_outcome *outcome);

/* Ends it, by force when it takes longer than 2 s, and waits until it is gone. -ESRCH: none runs.
 */
int dnsmasq_stop(struct dnsmasq_table *table, const char *network, struct verb_outcome *outcome);

/* Forgets children that ended. To be called on SIGCHLD. */
void dnsmasq_reap(struct dnsmasq_table *table);
