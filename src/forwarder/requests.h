/*
 * The front's connection, one at a time: its requests and their replies. Bytes come from a process
 * of the same user, and are believed as little as anybody's.
 */
#pragma once

#include "forwarder/listeners.h"

struct requests {
	struct watch listen_watch; /* first: of the socket that fronts connect to */
	struct watch front_watch;
	struct loop *loop;
	struct listeners *listeners;
	int listen_fd;  /* the caller's */
	int front;      /* owned; -1: none */
	bool has_begun; /* the front said BEGIN, and no END yet */
};

/* Waits for a front. The loop and the listeners outlive it. Negative errno. */
int requests_init(
	struct requests *requests, struct loop *loop, struct listeners *listeners, int listen_fd);
void requests_done(struct requests *requests);

/*
 * What a request does to the listeners: its result, and detail (FORWARDER_DETAIL_SIZE bytes) for
 * failures. Of fds it takes what it keeps. *has_begun is the connection's.
 */
int request_serve(struct listeners *listeners, const struct forwarder_request *request,
	struct fd_list *fds, bool *has_begun, char *detail);
