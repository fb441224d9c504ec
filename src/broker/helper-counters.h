/*
 * Asking a helper for what it counted. Each interface whose helper offers that has a socket
 * (unix(7), SOCK_SEQPACKET) in the directory of interface records. Its name is the broker's, so
 * that it is found again after a restart of the broker; the socket is the helper's, so that it
 * refuses connections when the helper is gone. A connection is the question, one message the
 * answer. A helper that nobody asks does nothing.
 */
#pragma once

#include <stdint.h>

#define HELPER_COUNTERS_SUFFIX ".counters"

/*
 * Makes the socket, in place of an earlier one: bound, non-blocking, and yet without listen(2),
 * which is for whoever gets it to call. Only the broker's user may connect. *ret_fd is the
 * caller's. Negative errno.
 */
int helper_counters_bind(int directory, uint32_t number, int *ret_fd);

/*
 * Connects, without waiting; *ret_fd is the caller's and becomes readable with the answer. -ENOENT:
 * its helper, if there is one, does not offer this. -ECONNREFUSED: the helper is gone, or carries
 * nothing yet. Other negative errno, -EAGAIN: it does not answer those who asked before.
 */
int helper_counters_connect(int directory, uint32_t number, int *ret_fd);

/* Removes the socket's name. Not being there is no error. Negative errno. */
int helper_counters_remove(int directory, uint32_t number);
