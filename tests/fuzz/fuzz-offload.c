/*
 * A hostile VM, and a hostile neighbour behind the TAP: batches of any frames with any header for
 * all five offloads. Every frame lies in memory of exactly its size, so that the sanitizer sees a
 * byte too far. Beside that: frames are neither lost nor doubled, what must be finished is, and
 * cutting what was joined gives the same frames, each flow's in their order.
 *
 * Input: one byte that chooses the function, one for the MTU, then the frames. Each begins with a
 * byte of settings, the low bits of which say what follows:
 *     GROWS     two bytes that are added to the length; the bytes added are a pattern
 *     HEADER    ten bytes of virtio header
 *     FOLLOWS   nothing; the frame is the next segment of the one before it, with one byte changed:
 *               one byte for the place and one to toggle it with (0: a true successor)
 *     otherwise one byte that says how many bytes of frame follow
 * REPAIRED: lengths and checksums are made right first, without which few frames would be joined.
 */
#include "base/cleanup.h"
#include "helper/offload.h"

#include <arpa/inet.h>
#include <string.h>

enum {
	GROWS = 0x01,
	HEADER = 0x02,
	FOLLOWS = 0x04,
	REPAIRED = 0x08,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* What is left of the input; taking more than there is gives zeros. */
struct input {
	const uint8_t *bytes;
	size_t size;
};

static struct gather gather;
static struct gather cut_gather;
static struct batch batch;
static uint8_t originals[BATCH_FRAMES][FRAME_SIZE_MAX];
static bool claimed[BATCH_FRAMES];

static void insist(bool condition)
{
	if (!condition)
		abort();
}

static void take(struct input *input, void *out, size_t size)
{
	size_t given = size < input->size ? size : input->size;

	memset(out, 0, size);
	memcpy(out, input->bytes, given);
	input->bytes += given;
	input->size -= given;
}

static uint8_t take_byte(struct input *input)
{
	uint8_t byte;

	take(input, &byte, sizeof(byte));
	return byte;
}

static uint16_t get16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void put16(uint8_t *bytes, size_t value)
{
	bytes[0] = (uint8_t)(value >> 8);
	bytes[1] = (uint8_t)value;
}

static uint32_t add_slowly(uint32_t sum, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum > 0xffff)
		sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

/* Returns where TCP begins in a frame without tags, options and extensions; 0: it is none. */
static size_t tcp_offset(const uint8_t *data, size_t length)
{
	bool is_ipv6 = get16(data + 12) == 0x86dd;

	if (!is_ipv6 && (get16(data + 12) != 0x0800 || length < 54 || data[14] != 0x45))
		return 0;
	if (is_ipv6)
		return length >= 74 && data[20] == 6 ? 54 : 0;
	return data[23] == 6 && (get16(data + 20) & 0x3fff) == 0 ? 34 : 0;
}

static void repair(struct frame *frame)
{
	size_t tcp = tcp_offset(frame->data, frame->length);
	uint8_t *ip = frame->data + 14;
	uint32_t sum;

	if (tcp == 0)
		return;
	sum = (uint32_t)(6 + frame->length - tcp);
	put16(frame->data + tcp + 16, 0);
	if (tcp == 54) {
		put16(ip + 4, frame->length - tcp);
		sum = add_slowly(sum, ip + 8, 32);
	} else {
		put16(ip + 2, frame->length - 14);
		put16(ip + 10, 0);
		put16(ip + 10, 0xffff ^ add_slowly(0, ip, 20));
		sum = add_slowly(sum, ip + 12, 8);
	}
	sum = add_slowly(sum, frame->data + tcp, frame->length - tcp);
	put16(frame->data + tcp + 16, 0xffff ^ sum);
}

/* Turns a copy of a segment into the one that follows it. */
static void advance(struct frame *frame)
{
	size_t tcp = tcp_offset(frame->data, frame->length);
	size_t headers;
	uint32_t sequence;

	if (tcp == 0)
		return;
	headers = tcp + (size_t)(frame->data[tcp + 12] >> 4) * 4;
	if (headers > frame->length)
		return;
	memcpy(&sequence, frame->data + tcp + 4, sizeof(sequence));
	sequence = htonl(ntohl(sequence) + (uint32_t)(frame->length - headers));
	memcpy(frame->data + tcp + 4, &sequence, sizeof(sequence));
	if (tcp == 34)
		put16(frame->data + 18, (size_t)get16(frame->data + 18) + 1);
}

static void take_content(struct input *input, uint8_t settings, struct frame *frame)
{
	size_t given = take_byte(input);
	size_t grown = settings & GROWS ? (size_t)take_byte(input) << 8 : 0;

	grown += settings & GROWS ? take_byte(input) : 0;
	frame->length = given + grown;
	if (frame->length < FRAME_HEADER_SIZE)
		frame->length = FRAME_HEADER_SIZE;
	if (frame->length > FRAME_SIZE_MAX)
		frame->length = FRAME_SIZE_MAX;
	frame->data = malloc(frame->length);
	insist(frame->data);
	for (size_t i = 0; i < frame->length; i++)
		frame->data[i] = (uint8_t)(i * 37);
	take(input, frame->data, given < frame->length ? given : frame->length);
}

static void take_successor(struct input *input, const struct frame *before, struct frame *frame)
{
	size_t place = take_byte(input);
	uint8_t toggle = take_byte(input);

	*frame = *before;
	frame->data = malloc(frame->length);
	insist(frame->data);
	memcpy(frame->data, before->data, frame->length);
	advance(frame);
	if (place < frame->length)
		frame->data[place] ^= toggle;
}

static void take_batch(struct input *input)
{
	batch.count = 0;
	while (input->size > 0 && batch.count < BATCH_FRAMES) {
		struct frame *frame = &batch.frames[batch.count];
		uint8_t settings = take_byte(input);

		*frame = (struct frame){0};
		if (settings & FOLLOWS && batch.count > 0)
			take_successor(input, frame - 1, frame);
		else
			take_content(input, settings, frame);
		if (settings & HEADER)
			take(input, &frame->header.hdr, sizeof(frame->header.hdr));
		if (settings & REPAIRED)
			repair(frame);
		memcpy(originals[batch.count], frame->data, frame->length);
		batch.count++;
	}
}

static void free_batch(void)
{
	for (size_t i = 0; i < batch.count; i++)
		free(batch.frames[i].data);
	batch.count = 0;
}

static bool is_plain(const struct gathered_frame *gathered)
{
	const struct virtio_net_hdr_mrg_rxbuf zeros = {0};

	return memcmp(&gathered->header, &zeros, sizeof(zeros)) == 0;
}

/* In memory of exactly its size, which is the caller's. */
static struct frame flatten(const struct gathered_frame *gathered)
{
	struct frame frame = {.data = malloc(gathered->length), .header = gathered->header};

	insist(frame.data && gathered->part_count >= 2);
	for (size_t i = 1; i < gathered->part_count; i++) {
		const struct iovec *part = &gathered->parts[i];

		insist(frame.length + part->iov_len <= gathered->length);
		memcpy(frame.data + frame.length, part->iov_base, part->iov_len);
		frame.length += part->iov_len;
	}
	insist(frame.length == gathered->length);
	return frame;
}

/* Where nothing may be fragmented IDs mean nothing, and joining may lose them (RFC 6864). */
static void forget_id(uint8_t *data, size_t length)
{
	if (tcp_offset(data, length) == 34 && get16(data + 20) == 0x4000) {
		put16(data + 18, 0);
		put16(data + 24, 0);
	}
}

/* Frames of one flow, or two that belong to none, must keep their order. */
static bool must_keep_order(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
	size_t tcp = tcp_offset(a, a_length);

	if (tcp != tcp_offset(b, b_length))
		return false;
	if (tcp == 54)
		return memcmp(a + 22, b + 22, 36) == 0;
	return tcp == 0 || memcmp(a + 26, b + 26, 12) == 0;
}

/* The frame is one of those that came, and none of its flow that came earlier is still missing. */
static void claim(const uint8_t *data, size_t length, bool was_joined)
{
	for (size_t i = 0; i < batch.count; i++) {
		static uint8_t original[FRAME_SIZE_MAX];

		if (claimed[i])
			continue;
		memcpy(original, originals[i], batch.frames[i].length);
		if (was_joined)
			forget_id(original, batch.frames[i].length);
		if (batch.frames[i].length == length && memcmp(original, data, length) == 0) {
			claimed[i] = true;
			return;
		}
		insist(!must_keep_order(original, batch.frames[i].length, data, length));
	}
	abort();
}

/* What was joined is cut again. */
static size_t claim_segments(struct frame *frame, size_t mtu)
{
	struct offload offload = {.mtu = mtu};
	struct direction_counters counters = {0};
	struct batch one = {.frames = {*frame}, .count = 1};
	size_t segments = 0;

	while (offload_segment(&offload, &one, &cut_gather, &counters)) {
		for (size_t i = 0; i < cut_gather.count; i++, segments++) {
			struct frame segment = flatten(&cut_gather.frames[i]);

			insist(is_plain(&cut_gather.frames[i]));
			forget_id(segment.data, segment.length);
			claim(segment.data, segment.length, true);
			free(segment.data);
		}
	}
	insist(counters.drops == 0);
	return segments;
}

static bool is_too_long(const uint8_t *data, size_t length, size_t mtu)
{
	size_t headers = 14;

	while (headers < 14 + 2 * 4 && headers <= length &&
		(get16(data + headers - 2) == 0x8100 || get16(data + headers - 2) == 0x88a8))
		headers += 4;
	return length > mtu + headers;
}

static void check_coalesced(const struct offload *offload)
{
	for (size_t i = 0; i < batch.count; i++)
		claimed[i] = is_too_long(originals[i], batch.frames[i].length, offload->mtu);
	for (size_t i = 0; i < gather.count; i++) {
		const struct gathered_frame *gathered = &gather.frames[i];
		struct frame frame = flatten(gathered);

		insist((gathered->frame_count == 1) == is_plain(gathered));
		if (gathered->frame_count == 1)
			claim(frame.data, frame.length, false);
		else
			insist(claim_segments(&frame, offload->mtu) == gathered->frame_count);
		free(frame.data);
	}
	for (size_t i = 0; i < batch.count; i++)
		insist(claimed[i]);
}

/* What reaches a VM without a header is finished; cut pieces fit the MTU. */
static void check_finished(const struct offload *offload)
{
	for (size_t i = 0; i < gather.count; i++) {
		struct frame frame = flatten(&gather.frames[i]);

		insist(is_plain(&gather.frames[i]));
		insist(frame.length >= FRAME_HEADER_SIZE);
		if (offload->fill == offload_segment)
			insist(frame.length <= offload->mtu + 14 + 2 * 4);
		free(frame.data);
	}
}

/* The header is one that the kernel may believe, and the frame is as it came. */
static void check_rebuilt(const struct offload *offload)
{
	for (size_t i = 0; i < gather.count; i++) {
		const struct gathered_frame *gathered = &gather.frames[i];
		const struct virtio_net_hdr *header = &gathered->header.hdr;
		struct frame frame = flatten(gathered);

		if (header->flags)
			insist((size_t)header->csum_start + header->csum_offset + 2 <=
				frame.length);
		if (header->gso_type)
			insist(header->flags && header->gso_size > 0 &&
				header->hdr_len <= frame.length);
		insist(header->gso_type || frame.length <= offload->mtu + 14 + 2 * 4);
		free(frame.data);
	}
}

static void check_passed(const struct offload *offload)
{
	insist(gather.count == batch.count);
	for (size_t i = 0; i < gather.count; i++) {
		struct frame frame = flatten(&gather.frames[i]);

		insist(frame.length == batch.frames[i].length);
		insist(memcmp(frame.data, originals[i], frame.length) == 0);
		insist(frame.header.num_buffers == 1);
		insist(memcmp(&frame.header.hdr, &batch.frames[i].header.hdr,
			       sizeof(frame.header.hdr)) == 0);
		free(frame.data);
	}
}

static const struct {
	offload_function fill;
	void (*check)(const struct offload *offload);
	bool is_one_to_one; /* each frame that came is gathered once or dropped */
} driven[] = {
	{offload_segment, check_finished, false},
	{offload_coalesce, check_coalesced, false},
	{offload_complete, check_finished, false},
	{offload_rebuild, check_rebuilt, true},
	{offload_pass, check_passed, true},
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const uint16_t mtus[] = {68, 576, 1280, 1500, 9000, 65535};
	struct input input = {bytes, size};
	size_t choice = take_byte(&input) % array_length(driven);
	struct offload offload = {
		.fill = driven[choice].fill,
		.mtu = mtus[take_byte(&input) % array_length(mtus)],
	};
	struct direction_counters counters = {0};
	size_t gathered = 0;

	take_batch(&input);
	offload_begin(&offload);
	while (offload.fill(&offload, &batch, &gather, &counters)) {
		insist(gather.count > 0 && gather.count <= BATCH_FRAMES);
		driven[choice].check(&offload);
		gathered += gather.count;
	}
	insist(counters.drops <= batch.count);
	insist(!driven[choice].is_one_to_one || gathered + counters.drops == batch.count);
	insist(gathered > 0 || counters.drops == batch.count);
	free_batch();
	return 0;
}
