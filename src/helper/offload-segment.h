/* Cuts one large frame; shared by what needs it. */
#pragma once

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
