/*
 * The listening socket and the peers: who may connect, how many, and when the broker has nothing
 * left to do.
 */
#pragma once

#include "broker/network.h"
#include "broker/peer.h"

#include <stdbool.h>
#include <systemd/sd-event.h>

struct server;

struct server_options {
	sd_event *event;
	struct registry *registry; /* outlives the server, which takes its changed call-back */
	int listen_fd;             /* taken over, on failure too */
	bool exit_when_idle;
	uint64_t idle_timeout_ms;
};

/*
 * Starts to accept. With exit_when_idle the loop ends with 0 when there has been neither a peer nor
 * a network for the idle time. Negative errno.
 */
int server_new(const struct server_options *options, struct server **ret_server);

/* Closes every connection. NULL is allowed. */
void server_free(struct server *server);

/* Frees closed peers in this turn of the loop. */
void server_sweep(struct server *server);

/* Whether a line that a peer caused may be logged: all peers together have one limit, because one
 * alone could connect anew for every line. */
bool server_may_log(struct server *server);

struct registry *server_registry(const struct server *server);
