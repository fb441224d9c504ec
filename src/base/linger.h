/*
 * Closing what a stranger made.
 */
#pragma once

#include "base/fdpass.h"

/*
 * Between the two no close(2) waits for longer than LINGER_MS in all, also one that the kernel does
 * when it drops an fd that did not fit. Without them the last close of a socket takes as long as
 * its maker likes (SO_LINGER, socket(7)), and sockets can hide in the queue of another, so it is no
 * use to look. Uses ITIMER_REAL and SIGALRM; what happens in between may be interrupted by it.
 */
void linger_limit(void);
void linger_unlimit(void);

/* fd_close() and fd_list_done() between the two. */
void linger_close_fd(int fd);
void linger_close_fds(struct fd_list *fds);

#define LINGER_MS 20
