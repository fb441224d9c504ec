/*
 * What a peer can call: org.vmnet.Broker and org.varlink.service. Decode, validate, check, do,
 * answer.
 */
#pragma once

#include "broker/network.h"
#include "broker/peer.h"

/* What a connection holds, and the call it waits for. */
struct session;

/* peer and registry outlive it. -ENOMEM. */
int session_new(struct peer *peer, struct registry *registry, struct session **ret_session);

/* Releases every network held and gives up the call that waits. NULL is allowed. */
void session_free(struct session *session);

/*
 * Handles one call; fds came with it and are closed by the caller when they were not taken. Answers
 * by peer_reply() and its like, now or, after peer_defer(), later.
 */
void methods_dispatch(
	struct session *session, const struct varlink_call *call, struct fd_list *fds);
