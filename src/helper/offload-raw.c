/* Towards and from a VM that takes and sends large frames, but no header. */
#include "helper/checksum.h"
#include "helper/offload-gather.h"
#include "helper/offload-layout.h"
#include "helper/offload-segment.h"

#include <errno.h>
#include <netinet/in.h>

#define IPV6_FRAGMENT_HEADER_SIZE 8
#define FRAGMENT_UNIT             8 /* offsets of fragments count these */

/* Returns as offload_segment_cut(). */
static int complete_frame(struct offload *offload, struct frame *frame, struct gather *gather)
{
	if (frame->header.hdr.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4)
		return offload_segment_cut(offload, frame, gather);
	return offload_gather_finished(gather, frame);
}

bool offload_complete(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters)
{
	return offload_segment_each(offload, batch, gather, counters, complete_frame);
}

static uint16_t checksum_place(const struct offload_layout *layout)
{
	return layout->protocol == IPPROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
}

static void ask_for_checksum(
	const struct offload_layout *layout, struct virtio_net_hdr_mrg_rxbuf *header)
{
	header->hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->hdr.csum_start = (uint16_t)layout->transport;
	header->hdr.csum_offset = checksum_place(layout);
}

static bool has_checksum(const struct offload_layout *layout)
{
	return !layout->is_fragment &&
	       (layout->protocol == IPPROTO_TCP || layout->protocol == IPPROTO_UDP);
}

/*
 * A guest that leaves the checksum to others leaves the pseudo-header's sum in its field. A right
 * checksum may by chance be the same number; computing it once more is then no harm. Padding behind
 * the packet is no part of the sum, so what is padded counts as finished.
 */
static bool checksum_is_partial(const struct frame *frame, const struct offload_layout *layout)
{
	const uint8_t *field = frame->data + layout->transport + checksum_place(layout);
	size_t length = frame->length - layout->transport;

	return load_sum(field) ==
	       checksum_fold(offload_layout_pseudo_sum(frame->data, layout, length));
}

/* What of the network's MTU is left behind the headers that each segment or fragment repeats. */
static size_t room_in_mtu(const struct offload_layout *layout, size_t mtu)
{
	size_t headers = layout->payload - layout->network;

	if (layout->protocol == IPPROTO_UDP) {
		headers = layout->transport - layout->network;
		if (layout->ip_version == 6)
			headers += IPV6_FRAGMENT_HEADER_SIZE;
	}
	return headers < mtu ? mtu - headers : 0;
}

static uint8_t cutting_type(const uint8_t *data, const struct offload_layout *layout)
{
	uint8_t type =
		layout->ip_version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;

	if (layout->protocol == IPPROTO_UDP)
		return VIRTIO_NET_HDR_GSO_UDP;
	if (data[layout->transport + TCP_FLAGS] & TCP_CWR)
		type |= VIRTIO_NET_HDR_GSO_ECN;
	return type;
}

/* Asks for a frame that is too long to be cut. Returns 0, -EMSGSIZE when headers fill the MTU. */
static int ask_for_cutting(const uint8_t *data, const struct offload_layout *layout, size_t mtu,
	struct virtio_net_hdr_mrg_rxbuf *header)
{
	size_t room = room_in_mtu(layout, mtu);

	if (layout->protocol == IPPROTO_UDP)
		room -= room % FRAGMENT_UNIT;
	if (room == 0)
		return -EMSGSIZE;
	header->hdr.hdr_len = (uint16_t)layout->payload;
	header->hdr.gso_type = cutting_type(data, layout);
	header->hdr.gso_size = (uint16_t)room;
	return 0;
}

/* Makes the header. Returns 0, -EMSGSIZE for a frame that is too long and can't be cut. */
static int rebuild_header(
	const struct frame *frame, size_t mtu, struct virtio_net_hdr_mrg_rxbuf *header)
{
	bool is_long = frame->length > offload_layout_frame_max(frame->data, frame->length, mtu);
	struct offload_layout layout;

	/* Offloads that cut come only with the one that sums. */
	if (offload_layout_parse(frame->data, frame->length, &layout) < 0 ||
		!has_checksum(&layout) || !checksum_is_partial(frame, &layout))
		return is_long ? -EMSGSIZE : 0;
	ask_for_checksum(&layout, header);
	return is_long ? ask_for_cutting(frame->data, &layout, mtu, header) : 0;
}

bool offload_rebuild(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters)
{
	offload_gather_empty(gather);
	for (; offload->next_frame < batch->count; offload->next_frame++) {
		const struct frame *frame = &batch->frames[offload->next_frame];
		struct virtio_net_hdr_mrg_rxbuf header = {0};

		if (rebuild_header(frame, offload->mtu, &header) < 0)
			counter_add(&counters->drops, 1);
		else
			offload_gather_whole(gather, frame)->header = header;
	}
	return gather->count > 0;
}
