/* Frames to be written, for tests of ports. */
#pragma once

#include "helper/port.h"

static inline void gather_clear(struct gather *gather)
{
	gather->count = gather->part_count = 0;
}

/* Adds a frame in two parts, of which the first ends at split; data stays the caller's. */
static inline struct gathered_frame *gather_add(
	struct gather *gather, uint8_t *data, size_t length, size_t split)
{
	struct gathered_frame *frame = &gather->frames[gather->count++];

	*frame = (struct gathered_frame){
		.parts = &gather->parts[gather->part_count],
		.part_count = 3,
		.length = length,
		.frame_count = 1,
	};
	frame->parts[1] = (struct iovec){data, split};
	frame->parts[2] = (struct iovec){data + split, length - split};
	gather->part_count += 3;
	return frame;
}
