#include "helper/offload-segment.h"

#include "helper/checksum.h"
#include "helper/offload-gather.h"
#include "helper/offload-layout.h"

#include <errno.h>
#include <netinet/in.h>

/*
 * The kernel sends TCP segments of at least 48 bytes with up to 40 of options (TCP_MIN_SND_MSS), so
 * that 64 KiB make 8192 at most. Smaller ones come from joined frames, but then they are few. What
 * wants more would keep the direction busy for one hostile write.
 */
#define SEGMENTS_MAX 8192

/* What the segments of one frame share, so that a header costs a copy and the sum of what changes:
 * 37 ns a segment of 1448 bytes in cache, 23 of them for the payload's sum (AMD EPYC; 0.026 CPU
 * s/GB). Sums are as in helper/checksum.h. */
struct cut {
	struct offload_layout layout;
	size_t segment_payload; /* bytes behind the headers, but for the last segment */
	size_t payload_length;  /* of all segments */
	uint32_t sequence;      /* TCP: of the first */
	uint16_t id;            /* IPv4: of the first */
	uint8_t flags;          /* TCP */
	uint64_t network_sum;   /* IPv4 header, its length and ID left out */
	uint64_t transport_sum; /* pseudo-header and header, without lengths, sequence and flags */
	uint8_t headers[GATHER_HEADER_SIZE]; /* what is left out of the sums is zero */
};

static bool is_tcp(const struct cut *cut)
{
	return cut->layout.protocol == IPPROTO_TCP;
}

static uint8_t gso_type(const struct frame *frame)
{
	return frame->header.hdr.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
}

static bool type_matches(uint8_t type, const struct offload_layout *layout)
{
	switch (type) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return layout->ip_version == 4 && layout->protocol == IPPROTO_TCP;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return layout->ip_version == 6 && layout->protocol == IPPROTO_TCP;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		return layout->protocol == IPPROTO_UDP;
	default:
		return false;
	}
}

static size_t checksum_place(const struct cut *cut)
{
	return is_tcp(cut) ? TCP_CHECKSUM : UDP_CHECKSUM;
}

/* Whether the virtio header and the frame's own headers say the same. */
static bool header_is_plausible(const struct cut *cut, const struct frame *frame)
{
	const struct virtio_net_hdr *header = &frame->header.hdr;

	if (cut->layout.is_fragment || !type_matches(gso_type(frame), &cut->layout))
		return false;
	if (cut->layout.payload > GATHER_HEADER_SIZE || cut->segment_payload == 0)
		return false;
	if (cut->payload_length / cut->segment_payload >= SEGMENTS_MAX)
		return false;
	return !(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
	       (header->csum_start == cut->layout.transport &&
		       header->csum_offset == checksum_place(cut));
}

/* Reads what all segments share from the frame. */
static int measure(struct cut *cut, const struct frame *frame, size_t mtu)
{
	int error = offload_layout_parse(frame->data, frame->length, &cut->layout);
	size_t segment_size;

	if (error)
		return -EBADMSG;
	cut->segment_payload = frame->header.hdr.gso_size;
	cut->payload_length = frame->length - cut->layout.payload;
	if (!header_is_plausible(cut, frame))
		return -EBADMSG;
	segment_size = cut->payload_length < cut->segment_payload ? cut->payload_length
								  : cut->segment_payload;
	if (cut->layout.payload - cut->layout.network + segment_size > mtu)
		return -EMSGSIZE;
	return 0;
}

static void clear(uint8_t *field, size_t size)
{
	memset(field, 0, size);
}

static void prepare_network(struct cut *cut)
{
	uint8_t *ip = cut->headers + cut->layout.network;

	if (cut->layout.ip_version == 6)
		return;
	cut->id = load16(ip + IPV4_ID);
	clear(ip + IPV4_LENGTH, sizeof(uint16_t));
	clear(ip + IPV4_ID, sizeof(uint16_t));
	clear(ip + IPV4_CHECKSUM, sizeof(uint16_t));
	cut->network_sum = checksum_add_short(0, ip, cut->layout.transport - cut->layout.network);
}

/*
 * The sum of the pseudo-header but for the length. What the sender left in the field is better than
 * our own sum: with a routing header it knew the final destination.
 */
static uint64_t pseudo_sum(const struct cut *cut, const struct frame *frame)
{
	const uint8_t *field = frame->data + cut->layout.transport + checksum_place(cut);
	uint32_t length = htonl((uint32_t)(frame->length - cut->layout.transport));

	if (frame->header.hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		return (uint64_t)load_sum(field) + (uint32_t)~length;
	return offload_layout_pseudo_sum(frame->data, &cut->layout, 0);
}

static void prepare_transport(struct cut *cut, const struct frame *frame)
{
	uint8_t *transport = cut->headers + cut->layout.transport;

	clear(transport + checksum_place(cut), sizeof(uint16_t));
	if (is_tcp(cut)) {
		cut->sequence = load32(transport + TCP_SEQUENCE);
		cut->flags = transport[TCP_FLAGS];
		clear(transport + TCP_SEQUENCE, sizeof(uint32_t));
		clear(transport + TCP_FLAGS, sizeof(uint8_t));
	} else {
		clear(transport + UDP_LENGTH, sizeof(uint16_t));
	}
	cut->transport_sum = checksum_add_short(
		pseudo_sum(cut, frame), transport, cut->layout.payload - cut->layout.transport);
}

static int prepare(struct cut *cut, const struct frame *frame, size_t mtu)
{
	int error = measure(cut, frame, mtu);

	if (error)
		return error;
	memcpy(cut->headers, frame->data, cut->layout.payload);
	cut->id = 0;
	cut->network_sum = 0;
	prepare_network(cut);
	prepare_transport(cut, frame);
	return 0;
}

static void finish_network(
	const struct cut *cut, uint8_t *headers, uint16_t number, size_t payload_length)
{
	uint8_t *ip = headers + cut->layout.network;
	uint16_t length = (uint16_t)(cut->layout.payload - cut->layout.network + payload_length);
	uint16_t id = (uint16_t)(cut->id + number);

	if (cut->layout.ip_version == 6) {
		store16(ip + IPV6_LENGTH, (uint16_t)(length - IPV6_HEADER_SIZE));
		return;
	}
	store16(ip + IPV4_LENGTH, length);
	store16(ip + IPV4_ID, id);
	store_sum(
		ip + IPV4_CHECKSUM, checksum_finish(cut->network_sum + htons(length) + htons(id)));
}

/* CWR tells of one event and goes with the first segment; what ends a stretch goes with the last.
 */
static uint8_t segment_flags(const struct cut *cut, bool is_first, bool is_last)
{
	uint8_t flags = cut->flags;

	if (!is_first)
		flags &= (uint8_t)~TCP_CWR;
	if (!is_last)
		flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	return flags;
}

static void finish_tcp(
	const struct cut *cut, uint8_t *tcp, size_t first_byte, uint8_t flags, uint64_t payload_sum)
{
	uint32_t sequence = cut->sequence + (uint32_t)first_byte;

	store32(tcp + TCP_SEQUENCE, sequence);
	tcp[TCP_FLAGS] = flags;
	store_sum(tcp + TCP_CHECKSUM,
		checksum_finish(cut->transport_sum + payload_sum + htonl(sequence) + htons(flags)));
}

static void finish_udp(const struct cut *cut, uint8_t *udp, uint16_t length, uint64_t payload_sum)
{
	uint16_t checksum = checksum_finish(cut->transport_sum + payload_sum + htons(length));

	store16(udp + UDP_LENGTH, length);
	store_sum(udp + UDP_CHECKSUM, checksum ? checksum : 0xffff);
}

/* Adds the segment whose payload begins at first_byte and returns the length of that payload. */
static size_t add_segment(
	const struct cut *cut, struct frame *frame, size_t first_byte, struct gather *gather)
{
	uint8_t *headers = gather->headers[gather->count];
	uint8_t *payload = frame->data + cut->layout.payload + first_byte;
	size_t left = cut->payload_length - first_byte;
	bool is_last = left <= cut->segment_payload;
	size_t size = is_last ? left : cut->segment_payload;
	size_t transport_length = cut->layout.payload - cut->layout.transport + size;
	uint64_t sum = checksum_add(htonl((uint32_t)transport_length), payload, size);
	struct gathered_frame *gathered = offload_gather_begin(gather);

	memcpy(headers, cut->headers, cut->layout.payload);
	finish_network(cut, headers, (uint16_t)(first_byte / cut->segment_payload), size);
	if (is_tcp(cut))
		finish_tcp(cut, headers + cut->layout.transport, first_byte,
			segment_flags(cut, first_byte == 0, is_last), sum);
	else
		finish_udp(cut, headers + cut->layout.transport, (uint16_t)transport_length, sum);
	offload_gather_add(gather, gathered, headers, cut->layout.payload);
	offload_gather_add(gather, gathered, payload, size);
	return size;
}

int offload_segment_cut(struct offload *offload, struct frame *frame, struct gather *gather)
{
	struct cut cut;
	int error = prepare(&cut, frame, offload->mtu);

	if (error)
		return error;
	if (cut.payload_length <= cut.segment_payload)
		return offload_gather_finished(gather, frame);
	while (offload->next_payload_byte < cut.payload_length) {
		if (gather->count == BATCH_FRAMES)
			return 1;
		offload->next_payload_byte +=
			add_segment(&cut, frame, offload->next_payload_byte, gather);
	}
	offload->next_payload_byte = 0;
	return 0;
}

/* Returns as offload_segment_cut(). */
static int segment_frame(struct offload *offload, struct frame *frame, struct gather *gather)
{
	if (frame->header.hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return offload_segment_cut(offload, frame, gather);
	if (frame->length > offload->mtu + ETHERNET_HEADER_SIZE &&
		frame->length > offload_layout_frame_max(frame->data, frame->length, offload->mtu))
		return -EMSGSIZE;
	return offload_gather_finished(gather, frame);
}

bool offload_segment(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters)
{
	return offload_segment_each(offload, batch, gather, counters, segment_frame);
}
