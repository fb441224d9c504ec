/* What peers can call about forwards. As methods.h; holder is the connection. */
#pragma once

#include "broker/forward.h"
#include "broker/peer.h"

#include "wire/varlink.h"

/* Each answers the call by peer_reply() or peer_fail(), at once. */
void forward_handle_add(struct peer *peer, struct forwards *forwards, const void *holder,
	const struct varlink_call *call);
void forward_handle_list(
	struct peer *peer, const struct forwards *forwards, const struct varlink_call *call);
void forward_handle_remove(
	struct peer *peer, struct forwards *forwards, const struct varlink_call *call);
