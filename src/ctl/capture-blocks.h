/*
 * What passes by in a pcapng stream, counted from pieces of any size: for the line at the end of a
 * capture. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* No block is longer, in bytes. */
#define CAPTURE_BLOCKS_MAX (1u << 20)

/* As much of a block as is looked at: of statistics, with the options that vmnet-broker writes. */
#define CAPTURE_BLOCKS_HEAD 72

/* Zero it first. */
struct capture_blocks {
	uint64_t packets, bytes; /* bytes: of the packets as they were, not as they were kept */
	uint64_t dropped;
	uint64_t interfaces;
	/* The block that is passing. */
	uint8_t head[CAPTURE_BLOCKS_HEAD];
	size_t size; /* of it so far, 0 between two; to be set to 0 where a stream ends within it */
};

/* Takes the next bytes, of this machine's byte order. -EBADMSG: they are no blocks, and nothing may
 * follow. */
int capture_blocks_take(struct capture_blocks *blocks, const uint8_t *bytes, size_t size);
