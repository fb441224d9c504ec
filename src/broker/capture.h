/*
 * Captures: who may see which packets, and which interfaces belong to a capture while it runs. The
 * packets themselves never come here.
 *
 * The owner of an interface may capture on it. A capture of a network has the interfaces of whoever
 * asks for it, those that come later too; root's has all of them.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/credentials.h"
#include "broker/network.h"
#include "wire/capture-call.h"

struct capture;

/*
 * Starts one. Returns 0; it is the caller's, and so is *ret_stream, which packets can be read from,
 * as pcapng; *ret_interfaces is how many it has. -ECANCELED with *failure filled in.
 */
int capture_start(struct registry *registry, const struct credentials *user,
	const struct capture_call *call, struct capture **ret_capture, int *ret_stream,
	size_t *ret_interfaces, struct failure *failure);

/* Ends it: its reader gets what belongs to the end. NULL is allowed. */
void capture_free(struct capture *capture);
DEFINE_CLEANUP(struct capture, capture_free)
