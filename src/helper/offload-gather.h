/* How the offloads put frames into a gather. The caller sees to it that there is room: a gather
 * takes the frames of any batch, and three parts for each of its frames. */
#pragma once

#include "helper/port.h"

/* Frames of before are forgotten. */
static inline void offload_gather_empty(struct gather *gather)
{
	gather->count = 0;
	gather->part_count = 0;
}

/* Begins a frame, with no part but the port's and a header of zeros. It is the gather's. */
static inline struct gathered_frame *offload_gather_begin(struct gather *gather)
{
	struct gathered_frame *frame = &gather->frames[gather->count++];

	*frame = (struct gathered_frame){
		.parts = &gather->parts[gather->part_count++],
		.part_count = 1,
		.frame_count = 1,
	};
	frame->parts[0] = (struct iovec){0};
	return frame;
}

/* Adds a part to the frame that was begun last. The memory stays the caller's. */
static inline void offload_gather_add(
	struct gather *gather, struct gathered_frame *frame, uint8_t *data, size_t size)
{
	gather->parts[gather->part_count++] = (struct iovec){.iov_base = data, .iov_len = size};
	frame->part_count++;
	frame->length += size;
}

/* Adds a frame as it is, with a header of zeros. */
static inline struct gathered_frame *offload_gather_whole(
	struct gather *gather, const struct frame *frame)
{
	struct gathered_frame *gathered = offload_gather_begin(gather);

	offload_gather_add(gather, gathered, frame->data, frame->length);
	return gathered;
}

/*
 * Adds a frame after completing in place the checksum that its header asks for, if it does; the
 * gathered frame's header is all zero. Returns 0, or -EBADMSG when the header points outside the
 * frame (nothing is added then). Source: virtio 1.2, 5.1.6.2.
 */
int offload_gather_finished(struct gather *gather, struct frame *frame);
