/* Cutting large frames; shared by what needs it. */
#pragma once

#include "helper/offload-gather.h"
#include "helper/offload.h"

/*
 * Cuts a GSO frame (TCP or UDP_L4) from offload->next_payload_byte on into gathered frames, until
 * all of it is there or the gather is full, and advances next_payload_byte, which is 0 again at the
 * end. Lengths, IPv4 IDs, flags and checksums become those of Linux's own segmentation
 * (skb_segment, tcp_gso_segment, __udp_gso_segment). A frame with payload for one segment is only
 * completed.
 *
 * Returns 0 when the frame is done, 1 when the gather is full before, -EBADMSG for a header that
 * contradicts the frame or that nobody honest sends, -EMSGSIZE when segments would be longer than
 * the MTU allows. Errors come before anything is added.
 */
int offload_segment_cut(struct offload *offload, struct frame *frame, struct gather *gather);

/* Puts one frame into the gather; returns as offload_segment_cut(). */
typedef int (*offload_segment_function)(
	struct offload *offload, struct frame *frame, struct gather *gather);

/* An offload_function that has each frame of the batch put into the gather by one, until that is
 * full. Inline, so that one is called directly. */
static inline bool offload_segment_each(struct offload *offload, struct batch *batch,
	struct gather *gather, struct direction_counters *counters, offload_segment_function one)
{
	offload_gather_empty(gather);
	while (offload->next_frame < batch->count && gather->count < BATCH_FRAMES) {
		int result = one(offload, &batch->frames[offload->next_frame], gather);

		if (result > 0)
			break;
		if (result < 0)
			counter_add(&counters->drops, 1);
		offload->next_frame++;
	}
	return gather->count > 0;
}
