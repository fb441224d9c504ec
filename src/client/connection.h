/*
 * One connection to a broker: whole messages and their fds, each wait with a deadline.
 *
 * Deadlines are times of CLOCK_MONOTONIC in milliseconds; CONNECTION_NO_WAIT never waits.
 */
#pragma once

#include "base/fdpass.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define CONNECTION_NO_WAIT 0

struct connection;

/* Now plus timeout_ms, as a deadline. */
int64_t deadline_after(uint32_t timeout_ms);

bool deadline_has_passed(int64_t deadline);

/*
 * Connects to the socket at path. A full queue of the listener is waited for until the deadline.
 * Errors: negative errno of connect(2); -ENAMETOOLONG for a path that no socket can have; -EAGAIN
 * while the queue is full.
 */
int connection_open(const char *path, int64_t deadline, struct connection **ret_connection);

/* Whether who listens at the other side is this user (SO_PEERCRED, unix(7)). */
bool connection_is_with_own_user(const struct connection *connection);

/* NULL is allowed. */
void connection_close(struct connection *connection);

/* The socket: to wait for, and nothing else. */
int connection_get_fd(const struct connection *connection);

/*
 * Sends message (not consumed) and, beside it, fds, which stay the caller's. -ETIMEDOUT; -EPIPE or
 * -ECONNRESET when the other side is gone; -EMSGSIZE. After any error the connection is of no more
 * use.
 */
int connection_send(struct connection *connection, json_t *message, const int *fds,
	size_t fds_count, int64_t deadline);

/*
 * The next message: 1, and it and its fds are the caller's. 0: with CONNECTION_NO_WAIT, none there
 * yet. -ETIMEDOUT; -ECONNRESET when the other side is gone; -EBADMSG or -EMSGSIZE when it does not
 * speak varlink. After any error the connection is of no more use.
 */
int connection_receive(struct connection *connection, int64_t deadline, json_t **ret_message,
	struct fd_list *ret_fds);
