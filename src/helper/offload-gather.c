#include "helper/offload-gather.h"

#include "helper/checksum.h"
#include "helper/offload-layout.h"

#include <errno.h>

/* The field holds the sum of the pseudo-header, so that the bytes from start on add up to the right
 * checksum. For UDP zero would say that there is none; for TCP both zeros are the same. */
static int complete_checksum(struct frame *frame)
{
	size_t start = frame->header.hdr.csum_start;
	size_t field = start + frame->header.hdr.csum_offset;
	uint16_t checksum;

	if (start > frame->length || field + sizeof(checksum) > frame->length)
		return -EBADMSG;
	checksum = checksum_finish(checksum_add(0, frame->data + start, frame->length - start));
	store_sum(frame->data + field, checksum ? checksum : 0xffff);
	return 0;
}

int offload_gather_finished(struct gather *gather, struct frame *frame)
{
	if (frame->header.hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		int error = complete_checksum(frame);

		if (error)
			return error;
	}
	offload_gather_whole(gather, frame);
	return 0;
}
