/*
 * Captures: processes without any privilege that copy what passes on VMs' interfaces into a socket.
 * An AF_PACKET socket can be bound to any interface by whoever has it, so it goes from here to such
 * a process and to nobody else.
 */
#pragma once

#include "base/cleanup.h"
#include "priv/links.h"
#include "priv/outcome.h"
#include "priv/verbs.h"

#include <sys/types.h>

/* What a front gone wild can start. */
#define CAPTURES_MAX 16

/* Whom the processes become; user_name stays the caller's. */
struct captures_options {
	uid_t uid;
	gid_t gid;
	const char *user_name; /* its supplementary groups, or NULL for none */
};

struct captures;

/* -ENOMEM. */
int captures_new(const struct captures_options *options, struct captures **ret_captures);

/* Ends all and waits for none: they die with this process. Accepts NULL. */
void captures_free(struct captures *captures);
DEFINE_CLEANUP(struct captures, captures_free)

/*
 * Starts one as wanted, which has been checked; bridge is the ifindex of the network whose end ends
 * it, 0: it ends with its last interface. Puts its number into outcome, and as fd the end of the
 * socket that it writes to: pcapng. It ends when nobody has that fd any more; when its owner shuts
 * the sending half down it writes what belongs to the end, and then ends. -ENOSPC: CAPTURES_MAX
 * run.
 */
int captures_start(struct captures *captures, const struct verb_start_capture *wanted,
	uint32_t bridge, struct verb_outcome *outcome);

/* Adds an interface of ours to a capture. -ESRCH: there is none of that number, or not for that
 * network. */
int captures_add(struct captures *captures, const struct verb_capture_interface *wanted,
	const struct tap_facts *tap, struct verb_outcome *outcome);

/* Has it write what belongs to the end, and end. -ESRCH: there is none of that number. */
int captures_end(struct captures *captures, uint32_t number, struct verb_outcome *outcome);

/* The same for all of them: who asked for them has gone. Accepts NULL. */
void captures_end_all(struct captures *captures);

/* Forgets those that ended. To be called on SIGCHLD. */
void captures_reap(struct captures *captures);
