/*
 * What is listened on: the forwards of the last list, each with its socket. Not what goes through
 * them (streams.h, datagrams.h).
 */
#pragma once

#include "base/fdpass.h"
#include "forwarder/datagrams.h"
#include "forwarder/listener.h"
#include "forwarder/streams.h"

#include <stddef.h>

struct listeners {
	struct loop *loop;
	struct streams *streams;
	struct datagrams *datagrams;
	struct listener *all; /* owned, FORWARDER_FORWARDS_MAX */
	size_t count;
	size_t resting_count;
	bool has_told_rest; /* until the next list */
};

/* The three outlive it. -ENOMEM. */
int listeners_init(struct listeners *listeners, struct loop *loop, struct streams *streams,
	struct datagrams *datagrams);
void listeners_done(struct listeners *listeners);

/* None was mentioned yet. */
void listeners_begin(struct listeners *listeners);

/*
 * As FORWARDER_ADD in forwarder-protocol.h; fds has none or the socket, which is taken out of it on
 * success. Negative errno, with detail (FORWARDER_DETAIL_SIZE bytes).
 */
int listeners_add(struct listeners *listeners, const struct forwarder_forward *forward,
	struct fd_list *fds, char *detail);

/* Ends those that were not mentioned. Returns how many there are now. */
int listeners_end(struct listeners *listeners, bool ends_flows);

/* Those that rest are watched again: every now and then while listeners_rest() says so. */
void listeners_resume(struct listeners *listeners);
bool listeners_rest(const struct listeners *listeners);
