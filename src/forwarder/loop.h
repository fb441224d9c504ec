/*
 * The one loop: who waits for what, by epoll(7), and the time.
 */
#pragma once

#include <stdint.h>

/* First in, or part of, whatever waits. handle may find that there is nothing to do: what was read
 * with one epoll_wait(2) can be outdated by what was handled before it. */
struct watch {
	void (*handle)(struct watch *watch, uint32_t events);
};

struct loop {
	int epoll;       /* owned */
	uint64_t now_ms; /* of CLOCK_MONOTONIC, once a turn */
};

/* Negative errno. */
int loop_init(struct loop *loop);
void loop_done(struct loop *loop);

/* events as in epoll_ctl(2). The watch stays the caller's, until loop_remove() or until the last
 * copy of fd is closed. Negative errno. */
int loop_add(struct loop *loop, int fd, uint32_t events, struct watch *watch);

/* For what another process may have a copy of. */
void loop_remove(struct loop *loop, int fd);

/* Waits, at most timeout_ms (-1: for ever), and has everything handled that came. Negative errno.
 */
int loop_turn(struct loop *loop, int timeout_ms);
