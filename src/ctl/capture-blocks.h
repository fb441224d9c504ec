/*
 * What passes by in a pcapng stream, counted from pieces of any size: for the line at the end of a
 * capture. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* As much of a block as is looked at: of statistics, with the options that vmnet-broker writes. */
#define CAPTURE_BLOCKS_HEAD 72

/* Zero it first. */
struct capture_blocks {
	uint64_t packets, bytes; /* bytes: of the packets as they were, not as they were kept */
	uint64_t dropped;
	uint64_t interfaces;
	/* The block that is passing. */
	uint8_t head[CAPTURE_BLOCKS_HEAD];
	size_t size; /* of it so far */
};

/* Takes the next bytes, of this machine's byte order. -EBADMSG: they are no blocks; nothing is
 * counted from then on. */
int capture_blocks_take(struct capture_blocks *blocks, const uint8_t *bytes, size_t size);
