/*
 * The front: by hand priv's child, which is started, told to end, and whose end is noticed; as a
 * unit of its own a connection that was accepted.
 */
#pragma once

#include "priv/priv.h"

#include <stdbool.h>
#include <sys/types.h>

/* What the front finds its sockets at. */
#define FRONT_VERBS_FD  3
#define FRONT_LISTEN_FD 4

/* A running front, or none: pid 0, fds -1. */
struct front {
	pid_t pid; /* 0 for one that connected: it is nobody's child here */
	int pidfd;
	int verbs; /* our end, non-blocking */
};

/* None. */
void front_init(struct front *front);

/* Starts one with a new pair of sockets. Negative errno, as spawn(). */
int front_start(const struct priv_options *options, struct front *ret_front);

/*
 * Accepts one from the non-blocking listening socket of options. -EACCES: it runs as somebody else
 * than the front's user, and has been closed; -EAGAIN: nobody waits; other negative errno of
 * accept(2).
 */
int front_accept(const struct priv_options *options, struct front *ret_front);

/* Sends it a signal, if it is a child. */
void front_signal(const struct front *front, int number);

/*
 * True when it has ended, with *ret_exit_status what it exited with, or -1 when a signal ended it;
 * front_done() is still to be called. Never waits.
 */
bool front_reap(struct front *front, int *ret_exit_status);

/* Ends it by force, waits until it is gone, and closes the fds. */
void front_done(struct front *front);
