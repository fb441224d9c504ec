/*
 * Pipes that splice(2) needs between two sockets, kept for the next who needs one.
 *
 * A connection has one only while bytes are on their way through it, so that thousands of idle ones
 * take none: a user has 16,384 pages of pipe buffers in all (/proc/sys/fs/pipe-user-pages-soft),
 * and beyond those the pipes of every other program of his shrink to two pages.
 * They are as large as the kernel makes them, 64 KiB: with 1 MiB each TCP took 0.24 instead of 0.29
 * CPU s/GB.
 */
#pragma once

#include <stddef.h>

#define PIPES_KEPT 32

struct pipe_pair {
	int read_end;
	int write_end;
};

struct pipes {
	struct pipe_pair kept[PIPES_KEPT];
	size_t count;
};

void pipes_init(struct pipes *pipes);
void pipes_done(struct pipes *pipes);

/* An empty pipe, the caller's. Negative errno of pipe2(2). */
int pipes_take(struct pipes *pipes, struct pipe_pair *ret_pipe);

/* Takes an empty one back. */
void pipes_give(struct pipes *pipes, struct pipe_pair pipe);

/* Ends one that may hold bytes. */
void pipe_close(struct pipe_pair pipe);
