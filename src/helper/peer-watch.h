/*
 * The VM's death. A datagram socket hides it from a helper that only reads, so the process that
 * sends the frames is watched: who it is the kernel tells with the first frame (SCM_CREDENTIALS,
 * unix(7)), when it ends a pidfd (pidfd_open(2)).
 *
 * One thread's: the one that polls.
 */
#pragma once

#include "helper/port.h"

#include <poll.h>

enum peer_watch_state {
	PEER_WATCH_UNKNOWN,    /* no frame yet; the first one leaves it */
	PEER_WATCH_ALIVE,      /* the sender is watched; its end leaves it */
	PEER_WATCH_RECHECKING, /* the sender ended, but may have handed its socket on; a frame of
				  another one, or the time-out, leaves it */
	PEER_WATCH_BLIND,      /* the sender cannot be watched; nothing leaves it */
	PEER_WATCH_GONE,       /* the VM is dead; nothing leaves it */
};

struct peer_watch {
	struct port *port; /* of port-dgram; NULL when nothing is watched */
	enum peer_watch_state state;
	int pidfd;
	int timer;
};

#define PEER_WATCH_FDS 3

/* A watch that watches nothing, for a VM whose end its cable tells: BLIND. */
void peer_watch_init_off(struct peer_watch *watch);

/*
 * Starts to watch who sends to the port, which stays the caller's and must outlive the watch.
 * Negative errno; peer_watch_done() is still to be called then.
 */
int peer_watch_init(struct peer_watch *watch, struct port *port);

void peer_watch_done(struct peer_watch *watch);

/* What to poll for; entries that do not matter now are -1. */
void peer_watch_fill(const struct peer_watch *watch, struct pollfd fds[PEER_WATCH_FDS]);

/* Acts on what poll() found in those entries; returns the state after it. */
enum peer_watch_state peer_watch_dispatch(
	struct peer_watch *watch, const struct pollfd fds[PEER_WATCH_FDS]);
