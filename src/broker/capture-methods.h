/* Capture, as a peer calls it. */
#pragma once

#include "broker/capture.h"
#include "broker/peer.h"

/* held: the connection's one capture, NULL or the caller's, which ends when there is a new one. */
void capture_handle(struct peer *peer, struct registry *registry, struct capture **held,
	const struct varlink_call *call);
