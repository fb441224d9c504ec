/*
 * Forwards: ports of the host that lead to VMs. Which there are, whose they are, and which VM each
 * one leads to at the moment; the kernel's rules follow.
 *
 * A forward has a rule while its network runs and a VM has the name or address it leads to; else it
 * waits. One that cannot have its rule, as a program of the host has the port, is tried again every
 * few seconds. A user's forward leads to VMs of his own and to no others.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/forward-records.h"
#include "broker/network.h"

#define FORWARDS_MAX 1024 /* in all */

struct forward {
	struct forward *next; /* sorted by id */
	struct forward_record record;
	const void *holder;      /* FORWARD_HELD: the connection; NULL: one that may come back */
	pid_t holder_pid;        /* 0: not known */
	bool leads;              /* there is a VM for it */
	bool is_active;          /* and a rule, as far as is known */
	struct endpoint address; /* where it leads */
};

/* Who asks. */
struct forward_asker {
	const struct credentials *user;
	const void *holder; /* its connection */
};

struct forwards {
	struct registry *registry;
	struct forward_records *records;
	struct forward *list;
	size_t count;
	struct platform_timer *grace;
	/* The rules in the kernel, unless they are unknown. */
	struct platform_forward *applied;
	size_t applied_count;
	size_t failed_count; /* of those, how many could not be made */
	struct platform_timer *retry;
	bool is_unknown;
	bool is_due; /* those that could not be made are tried again */
	bool is_frozen;
};

/*
 * Takes up what was recorded: pinned ones, and held ones whose connections get a few seconds to
 * come back; rules are left as they are. The registry outlives it. records is taken over, on
 * failure too. Negative errno.
 */
int forwards_new(
	struct registry *registry, struct forward_records *records, struct forwards **ret_forwards);

/* Leaves the rules as they are. NULL is allowed. */
void forwards_free(struct forwards *forwards);
DEFINE_CLEANUP(struct forwards, forwards_free)

/* Before connections end with the broker, and not by their owners: their forwards stay. */
void forwards_freeze(struct forwards *forwards);

/*
 * Makes the configured forwards what the registry's configuration says now: once behind
 * forwards_new(), and again when it has changed. One whose port a recorded forward has is logged
 * and left out. NULL is allowed.
 */
void forwards_configure(struct forwards *forwards);

/*
 * Brings the rules up to date with networks and interfaces; cheap when nothing changed. NULL is
 * allowed. Returns 0, or negative errno with detail (PLATFORM_DETAIL_SIZE bytes; may be NULL),
 * which has been logged.
 */
int forwards_update(struct forwards *forwards, char *detail);

/* The same where the kernel may have lost its rules or the switches of a bridge. */
void forwards_repair(struct forwards *forwards, const char *reason);

/*
 * Adds one, held by asker's connection or pinned. The very same one of the same asker again changes
 * nothing; of one that waits for its connection the asker's becomes the holder. Returns 0 with the
 * forward, which stays the list's, or -ECANCELED with *failure filled in.
 */
int forwards_add(struct forwards *forwards, const struct forward_call *call,
	const struct forward_asker *asker, struct forward **ret_forward, struct failure *failure);

/* Removes a pinned one of uid's, or anybody's for root. -ECANCELED with *failure filled in. */
int forwards_remove(struct forwards *forwards, uint32_t id, uid_t uid, struct failure *failure);

/* The connection has ended, and what it held ends. NULL is allowed. */
void forwards_drop_holder(struct forwards *forwards, const void *holder);

/* What peers are told of it. */
void forward_describe(const struct forward *forward, struct broker_forward *ret_described);
