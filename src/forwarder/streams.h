/*
 * TCP connections that are led on: two sockets each, joined both ways by splice(2), which moves
 * references to the kernel's pages and copies no byte.
 *
 * Nothing is allocated for a byte or a connection. What one side does not take stays in the other's
 * socket, but for one pipe of it. An end of sending is passed on by itself, and a reset as a reset.
 * Silence ends nothing: keepalive is on at both sides, with the kernel's times, for peers that have
 * gone without a word.
 */
#pragma once

#include "forwarder/forwarder-protocol.h"
#include "forwarder/loop.h"
#include "forwarder/pipes.h"

#include <stdbool.h>
#include <stddef.h>

/* Open files that a stream has at most: two sockets, and two pipes while neither side reads. */
#define STREAM_FDS_MAX 6

enum stream_state {
	STREAM_UNUSED,     /* in the list of free ones */
	STREAM_CONNECTING, /* the client waits in its socket; leaves when the VM answers or not */
	STREAM_JOINED,     /* both sides speak */
	STREAM_ENDED,      /* closed; unused when no event that was read can name it any more */
};

struct stream;

/* One socket. What it is ready for is known from epoll's edges: true until a call said EAGAIN. */
struct stream_side {
	struct watch watch;
	struct stream *stream;
	int fd;
	bool is_readable, is_writable;
};

/* One direction. */
struct stream_half {
	struct pipe_pair pipe; /* while bytes_in_pipe is not 0 */
	size_t bytes_in_pipe;
	bool is_over;   /* nothing more will come, or be taken */
	bool is_broken; /* because the side it leads to is gone */
};

struct stream {
	enum stream_state state;
	struct streams *streams;
	struct stream_side sides[2];  /* client, VM */
	struct stream_half halves[2]; /* from sides[i] to the other */
	struct stream *next;          /* of the list it is in by its state */
	struct stream *next_in_turn;
	bool has_turn;
};

struct streams {
	struct loop *loop;
	struct pipes pipes;
	struct stream *all; /* owned */
	size_t count_max, count;
	struct stream *unused, *ended;
	struct stream *first_in_turn, *last_in_turn; /* had more to move than one turn's share */
	bool has_told_limit;
};

/* At most count_max at a time. The loop outlives it. -ENOMEM. */
int streams_init(struct streams *streams, struct loop *loop, size_t count_max);

/* Resets every connection. */
void streams_done(struct streams *streams);

/*
 * Takes clients from listener and connects each to the forward's target. More than there may be are
 * reset. Negative errno when the system is out of something and the listener should be left alone
 * for a while.
 */
int streams_accept(struct streams *streams, int listener, const struct forwarder_forward *forward);

/* Whether streams_end_turn() has something to move, so that the loop must not wait. */
bool streams_have_turn(const struct streams *streams);

/* Once behind everything that a turn of the loop handled. */
void streams_end_turn(struct streams *streams);
