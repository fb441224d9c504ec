/* Small frames to large ones, and back again. */
#include "offload-frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10
#define URG 0x20
#define ECE 0x40
#define CWR 0x80

#define MSS 1448

static const struct frame_spec data_segment = {
	.flags = ACK, .tcp_options = 12, .window = 500, .payload_length = MSS};

/* The number-th segment of a stream. */
static struct frame_spec segment_at(struct frame_spec spec, size_t number)
{
	spec.sequence += (uint32_t)(number * spec.payload_length);
	spec.id += (uint16_t)number;
	return spec;
}

static void add_segments(struct offload_bench *bench, struct frame_spec spec, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct frame_spec segment = segment_at(spec, i);

		offload_bench_add_spec(bench, &segment);
	}
}

static void coalesce(struct offload_bench *bench)
{
	assert_true(offload_bench_fill(bench, offload_coalesce, true));
	assert_int_equal(offload_bench_drops(bench), 0);
}

/* That gathered frame stands for count frames which make the specified one. */
static void expect_joined(
	struct offload_bench *bench, size_t index, struct frame_spec spec, size_t count)
{
	const struct gathered_frame *gathered = &bench->gather.frames[index];
	struct virtio_net_hdr_mrg_rxbuf header = {.hdr = frame_gso_header(&spec, MSS)};

	assert_true(index < bench->gather.count);
	assert_int_equal(gathered->frame_count, count);
	if (count == 1) {
		frame_expect_plain(gathered);
	} else {
		assert_memory_equal(&gathered->header, &header, sizeof(header));
		spec.is_partial = true;
	}
	frame_expect(gathered, &spec);
}

static struct frame_spec with_payload(struct frame_spec spec, size_t length)
{
	spec.payload_length = length;
	return spec;
}

static void test_a_stream_becomes_large_frames(void **state)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec spec = data_segment;
		size_t fitting;

		spec.is_ipv6 = kind & 1;
		spec.tcp_options = kind & 2 ? 12 : 0;
		spec.sequence = 0xffff0000;
		spec.id = 0xfff0;
		bench->offload.mtu = 1560;
		fitting = (65535 - (frame_header_size(&spec) - 14)) / MSS;
		add_segments(bench, spec, fitting + 20);
		coalesce(bench);
		assert_int_equal(bench->gather.count, 2);
		expect_joined(bench, 0, with_payload(spec, fitting * MSS), fitting);
		expect_joined(bench, 1, with_payload(segment_at(spec, fitting), 20 * MSS), 20);
		assert_false(offload_bench_fill(bench, offload_coalesce, false));
		bench->offload.mtu = FRAME_MTU;
	}
}

static void test_interleaved_flows_are_joined_each(void **state)
{
	const size_t flows = 8;
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = data_segment;

	for (size_t i = 0; i < BATCH_FRAMES; i++) {
		struct frame_spec segment = segment_at(spec, i / flows);

		segment.flow = (uint8_t)(i % flows);
		offload_bench_add_spec(bench, &segment);
	}
	coalesce(bench);
	assert_int_equal(bench->gather.count, flows);
	for (size_t i = 0; i < flows; i++) {
		spec.flow = (uint8_t)i;
		expect_joined(bench, i, with_payload(spec, MSS * (BATCH_FRAMES / flows)),
			BATCH_FRAMES / flows);
	}
}

static void test_more_flows_than_places_stay_whole(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	for (size_t i = 0; i < BATCH_FRAMES; i++) {
		struct frame_spec segment = segment_at(data_segment, i / 32);

		segment.flow = (uint8_t)(i % 32);
		offload_bench_add_spec(bench, &segment);
	}
	coalesce(bench);
	assert_int_equal(bench->gather.count, BATCH_FRAMES);
	for (size_t i = 0; i < BATCH_FRAMES; i++) {
		struct frame_spec segment = segment_at(data_segment, i / 32);

		segment.flow = (uint8_t)(i % 32);
		expect_joined(bench, i, segment, 1);
	}
}

static void test_the_last_segment_may_be_short_and_end(void **state)
{
	const uint8_t endings[] = {0, PSH, FIN, FIN | PSH};

	for (size_t i = 0; i < sizeof(endings); i++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec last = segment_at(data_segment, 2);
		struct frame_spec whole = with_payload(data_segment, 2 * MSS + 7);

		last.payload_length = 7;
		last.flags |= endings[i];
		whole.flags |= endings[i];
		add_segments(bench, data_segment, 2);
		offload_bench_add_spec(bench, &last);
		add_segments(bench, segment_at(data_segment, 9), 2);
		coalesce(bench);
		assert_int_equal(bench->gather.count, 2);
		expect_joined(bench, 0, whole, 3);
		expect_joined(bench, 1, with_payload(segment_at(data_segment, 9), 2 * MSS), 2);
	}
}

/* PSH ends what it stands in, also at the beginning. */
static void test_nothing_is_joined_behind_a_push(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec first = data_segment;

	first.flags |= PSH;
	offload_bench_add_spec(bench, &first);
	add_segments(bench, segment_at(data_segment, 1), 2);
	coalesce(bench);
	assert_int_equal(bench->gather.count, 2);
	expect_joined(bench, 0, first, 1);
	expect_joined(bench, 1, with_payload(segment_at(data_segment, 1), 2 * MSS), 2);
}

/* A segment in the middle of three that differs from them in one way. */
struct odd_segment {
	const char *name;
	struct frame_spec difference; /* flags are toggled, the rest is added */
	size_t byte;                  /* that is changed in the built frame; 0: none */
	uint8_t toggle;
	bool is_damaged; /* the checksums are those of before */
	bool is_ipv6;    /* all three are */
};

/* Bytes are those of Ethernet, IP without options and TCP. */
static const struct odd_segment odd_segments[] = {
	{"SYN", {.flags = SYN}},
	{"RST", {.flags = RST}},
	{"URG", {.flags = URG}},
	{"CWR", {.flags = CWR}},
	{"ECE", {.flags = ECE}},
	{"no ACK", {.flags = ACK}},
	{"window", {.window = 1}},
	{"acknowledged", {.acknowledged = 1}},
	{"longer", {.payload_length = 1}},
	{"no data", {.payload_length = 20 - MSS}},
	{"gap", {.sequence = 1}},
	{"repeated", {.sequence = 20 - MSS}},
	{"id", {.id = 2}},
	{"TOS", {.traffic = 2}},
	{"fragments allowed", {.may_fragment = true}},
	{"fewer options", {.tcp_options = -4}},
	{"IP options", {.ip_options = 4, .payload_length = -100}},
	{"reserved TCP bit", .byte = 14 + 20 + 12, .toggle = 1},
	{"other option", .byte = 14 + 20 + 21, .toggle = 1},
	{"urgent pointer", .byte = 14 + 20 + 19, .toggle = 1},
	{"destination MAC", .byte = 3, .toggle = 1},
	{"source MAC", .byte = 9, .toggle = 1},
	{"TTL", .byte = 14 + 8, .toggle = 1},
	{"reserved IP bit", .byte = 14 + 6, .toggle = 0x80},
	{"first fragment", .byte = 14 + 6, .toggle = 0x20},
	{"other fragment", .byte = 14 + 7, .toggle = 0x08},
	{"flow label", .byte = 14 + 3, .toggle = 1, .is_ipv6 = true},
	{"traffic class", .byte = 14 + 1, .toggle = 0x20, .is_ipv6 = true},
	{"hop limit", .byte = 14 + 7, .toggle = 1, .is_ipv6 = true},
	{"IPv6 length", .byte = 14 + 5, .toggle = 1, .is_ipv6 = true},
	{"IP length", .byte = 14 + 3, .toggle = 1},
	{"IP checksum", .byte = 14 + 10, .toggle = 1, .is_damaged = true},
	{"TCP checksum", .byte = 14 + 20 + 16, .toggle = 1, .is_damaged = true},
	{"payload", .byte = 14 + 20 + 40, .toggle = 0x80, .is_damaged = true},
};

static struct frame_spec differing(
	const struct frame_spec *base, const struct frame_spec *difference)
{
	struct frame_spec spec = segment_at(*base, 1);

	spec.flags ^= difference->flags;
	spec.may_fragment = difference->may_fragment;
	spec.traffic += difference->traffic;
	spec.window += difference->window;
	spec.id += difference->id;
	spec.sequence += difference->sequence;
	spec.acknowledged += difference->acknowledged;
	spec.ip_options += difference->ip_options;
	spec.tcp_options += difference->tcp_options;
	spec.payload_length += difference->payload_length;
	return spec;
}

static void add_odd(struct offload_bench *bench, const struct odd_segment *odd,
	const struct frame_spec *base, uint8_t *copy)
{
	struct frame_spec spec = differing(base, &odd->difference);
	struct frame *frame = offload_bench_add_spec(bench, &spec);

	if (odd->byte > 0) {
		frame->data[odd->byte] ^= odd->toggle;
		if (!odd->is_damaged)
			frame_repair(&spec, frame->data);
	}
	memcpy(copy, frame->data, frame->length);
}

static void expect_untouched(struct offload_bench *bench, const struct odd_segment *odd)
{
	struct frame_spec base = data_segment;
	struct frame_spec behind;
	uint8_t copy[FRAME_SIZE_MAX];
	uint8_t found[FRAME_SIZE_MAX];
	size_t length;

	base.is_ipv6 = odd->is_ipv6;
	base.payload_length = MSS - 20;
	behind = segment_at(base, 2);
	offload_bench_add_spec(bench, &base);
	add_odd(bench, odd, &base, copy);
	offload_bench_add_spec(bench, &behind);
	coalesce(bench);
	assert_int_equal(bench->gather.count, 3);
	for (size_t i = 0; i < 3; i++)
		frame_expect_plain(&bench->gather.frames[i]);
	frame_expect(&bench->gather.frames[0], &base);
	length = frame_flatten(&bench->gather.frames[1], found);
	assert_memory_equal(found, copy, length);
	frame_expect(&bench->gather.frames[2], &behind);
}

static void test_what_differs_is_left_alone(void **state)
{
	for (size_t i = 0; i < sizeof(odd_segments) / sizeof(odd_segments[0]); i++) {
		print_message("%s\n", odd_segments[i].name);
		expect_untouched(offload_bench_of(state), &odd_segments[i]);
	}
}

/* What comes between two that would go together: theirs is the flow, or it may be. */
static void test_nothing_is_moved_across_its_flow(void **state)
{
	for (size_t kind = 0; kind < 4; kind++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec between = segment_at(data_segment, 1);
		struct frame *frame;

		between.payload_length = 0;
		between.ip_options = kind == 1 ? 8 : 0;
		between.is_ipv6 = kind == 3;
		add_segments(bench, data_segment, 1);
		frame = offload_bench_add_spec(bench, &between);
		if (kind == 2)
			frame->data[14 + 7] = 1; /* a fragment from elsewhere in a packet */
		if (kind == 3)
			frame->data[14 + 6] = 44; /* a fragment */
		add_segments(bench, segment_at(data_segment, 1), 1);
		coalesce(bench);
		assert_int_equal(bench->gather.count, 3);
		frame_expect(&bench->gather.frames[0], &data_segment);
	}
}

/* Each tells of an event; one of them for all would tell of one. */
static void test_segments_with_cwr_are_left_alone(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = data_segment;

	spec.flags |= CWR;
	add_segments(bench, spec, 3);
	coalesce(bench);
	assert_int_equal(bench->gather.count, 3);
}

/* The same change to all of them is no hindrance, where it is one of what TCP does all the time. */
static void test_what_is_the_same_is_joined(void **state)
{
	struct frame_spec specs[] = {data_segment, data_segment, data_segment, data_segment};

	specs[0].flags |= ECE;
	specs[1].traffic = 1;
	specs[2].tcp_options = 40;
	specs[3].flags = 0;
	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct offload_bench *bench = offload_bench_of(state);

		add_segments(bench, specs[i], 3);
		bench->offload.mtu = 1600;
		coalesce(bench);
		assert_int_equal(bench->gather.count, 1);
		expect_joined(bench, 0, with_payload(specs[i], 3 * MSS), 3);
		bench->offload.mtu = FRAME_MTU;
	}
}

static void test_an_id_may_stand_still_where_nobody_needs_it(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	for (size_t fixed = 0; fixed < 2; fixed++) {
		struct frame_spec spec = data_segment;

		offload_bench_reset(bench);
		spec.may_fragment = fixed == 0;
		for (size_t i = 0; i < 3; i++) {
			struct frame_spec segment = segment_at(spec, i);

			segment.id = 77;
			offload_bench_add_spec(bench, &segment);
		}
		coalesce(bench);
		assert_int_equal(bench->gather.count, fixed ? 1 : 3);
		spec.id = 77;
		expect_joined(bench, 0, with_payload(spec, fixed ? 3 * MSS : MSS), fixed ? 3 : 1);
	}
}

static void test_other_frames_end_no_run(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec datagram = {.is_udp = true, .payload_length = 100};
	const uint8_t arp[60] = {[12] = 0x08, [13] = 0x06};

	offload_bench_add_spec(bench, &data_segment);
	offload_bench_add_spec(bench, &datagram);
	offload_bench_add(bench, arp, sizeof(arp));
	add_segments(bench, segment_at(data_segment, 1), 1);
	coalesce(bench);
	assert_int_equal(bench->gather.count, 3);
	expect_joined(bench, 0, with_payload(data_segment, 2 * MSS), 2);
	frame_expect(&bench->gather.frames[1], &datagram);
	frame_expect_plain(&bench->gather.frames[2]);
}

static void test_frames_with_tags_are_left_alone(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = data_segment;

	spec.tags = 1;
	add_segments(bench, spec, 2);
	coalesce(bench);
	assert_int_equal(bench->gather.count, 2);
	expect_joined(bench, 1, segment_at(spec, 1), 1);
}

/* VLAN tags do not count, as on the way to the VM. */
static void test_frames_longer_than_the_mtu_are_dropped(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = data_segment;

	for (spec.tags = 0; spec.tags <= 2; spec.tags++) {
		struct frame_spec longer = spec;

		longer.payload_length = MSS + 1;
		offload_bench_reset(bench);
		add_segments(bench, longer, 1);
		add_segments(bench, spec, 1);
		add_segments(bench, longer, 1);
		assert_true(offload_bench_fill(bench, offload_coalesce, true));
		assert_int_equal(offload_bench_drops(bench), 2);
		assert_int_equal(bench->gather.count, 1);
		frame_expect(&bench->gather.frames[0], &spec);
	}
}

static void test_nothing_but_frames_too_long(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	add_segments(bench, with_payload(data_segment, MSS + 1), 1);
	assert_false(offload_bench_fill(bench, offload_coalesce, true));
	assert_int_equal(offload_bench_drops(bench), 1);
}

static uint32_t dice_state;

static uint32_t roll(uint32_t sides)
{
	dice_state = dice_state * 1664525 + 1013904223;
	return (dice_state >> 8) % sides;
}

/* What a sender does: mostly full segments, now and then a push, an acknowledgement, a short one, a
 * loss, a change of the window or of the mark. */
static struct frame_spec roll_segment(struct frame_spec *flow)
{
	struct frame_spec spec;

	flow->acknowledged += roll(16) == 0;
	flow->window += (uint16_t)(roll(16) == 0);
	flow->traffic ^= (uint8_t)(roll(24) == 0);
	flow->sequence += roll(24) == 0 ? MSS : 0;
	spec = *flow;
	if (roll(12) == 0)
		spec.flags |= PSH;
	if (roll(40) == 0)
		spec.flags |= FIN;
	spec.payload_length = roll(8) == 0 ? roll(MSS - 40) : MSS - 40;
	spec.ip_options = roll(32) == 0 ? 8 : 0;
	flow->sequence += (uint32_t)spec.payload_length;
	flow->id++;
	return spec;
}

/* Every batch is remembered as specifications: what went in must come out, flow by flow. */
static size_t roll_batch(struct offload_bench *bench, struct frame_spec *ret_specs)
{
	struct frame_spec flows[20];
	size_t flow_count = 1 + roll(20);
	size_t count = 1 + roll(BATCH_FRAMES);

	for (size_t i = 0; i < flow_count; i++)
		flows[i] = (struct frame_spec){
			.flow = (uint8_t)i,
			.is_ipv6 = i & 1,
			.is_udp = i % 7 == 6,
			.may_fragment = i & 2,
			.tcp_options = i % 7 == 6 ? 0 : i % 3 * 4,
			.flags = ACK,
			.id = (uint16_t)roll(65536),
			.sequence = roll(1 << 24) << 8,
		};
	for (size_t i = 0; i < count; i++) {
		ret_specs[i] = roll_segment(&flows[roll(2) ? 0 : roll((uint32_t)flow_count)]);
		offload_bench_add_spec(bench, &ret_specs[i]);
	}
	return count;
}

/* The frame is one of those that came. */
static void expect_unseen(const struct gathered_frame *gathered, const struct frame_spec *specs,
	size_t count, bool *seen)
{
	uint8_t found[FRAME_SIZE_MAX];
	size_t length = frame_flatten(gathered, found);

	for (size_t i = 0; i < count; i++) {
		uint8_t expected[FRAME_SIZE_MAX];
		size_t expected_length = frame_build(&specs[i], expected);

		if (seen[i])
			continue;
		if (expected_length == length && memcmp(found, expected, length) == 0) {
			seen[i] = true;
			return;
		}
	}
	fail_msg("a frame that never came, or came twice");
}

static void expect_order(const struct frame_spec *specs, size_t count, const bool *seen)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t k = i + 1; k < count; k++)
			assert_false(seen[k] && !seen[i] && specs[i].flow == specs[k].flow);
	}
}

static size_t cut_again(const struct gathered_frame *gathered, struct offload_bench *cutter)
{
	uint8_t bytes[FRAME_SIZE_MAX];
	size_t length = frame_flatten(gathered, bytes);

	offload_bench_reset(cutter);
	offload_bench_add(cutter, bytes, length)->header = gathered->header;
	assert_true(offload_bench_fill(cutter, offload_segment, true));
	assert_int_equal(cutter->gather.count, gathered->frame_count);
	return cutter->gather.count;
}

static void test_cutting_again_gives_every_flow_as_it_was(void **state)
{
	struct offload_bench *bench = *state;
	struct offload_bench *cutter = offload_bench_new(FRAME_MTU);
	size_t joined = 0;

	for (dice_state = 0; dice_state < 300;) {
		uint32_t seed = dice_state;
		struct frame_spec specs[BATCH_FRAMES];
		bool seen[BATCH_FRAMES] = {0};
		size_t count, found = 0;

		offload_bench_reset(bench);
		count = roll_batch(bench, specs);
		coalesce(bench);
		for (size_t i = 0; i < bench->gather.count; i++) {
			size_t segments = cut_again(&bench->gather.frames[i], cutter);

			joined += segments > 1 ? segments : 0;
			for (size_t k = 0; k < segments; k++, found++) {
				expect_unseen(&cutter->gather.frames[k], specs, count, seen);
				expect_order(specs, count, seen);
			}
		}
		assert_int_equal(found, count);
		dice_state = seed + 1;
	}
	offload_bench_free(cutter);
	assert_true(joined > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stream_becomes_large_frames),
		cmocka_unit_test(test_interleaved_flows_are_joined_each),
		cmocka_unit_test(test_more_flows_than_places_stay_whole),
		cmocka_unit_test(test_the_last_segment_may_be_short_and_end),
		cmocka_unit_test(test_nothing_is_joined_behind_a_push),
		cmocka_unit_test(test_what_differs_is_left_alone),
		cmocka_unit_test(test_nothing_is_moved_across_its_flow),
		cmocka_unit_test(test_segments_with_cwr_are_left_alone),
		cmocka_unit_test(test_what_is_the_same_is_joined),
		cmocka_unit_test(test_an_id_may_stand_still_where_nobody_needs_it),
		cmocka_unit_test(test_other_frames_end_no_run),
		cmocka_unit_test(test_frames_with_tags_are_left_alone),
		cmocka_unit_test(test_frames_longer_than_the_mtu_are_dropped),
		cmocka_unit_test(test_nothing_but_frames_too_long),
		cmocka_unit_test(test_cutting_again_gives_every_flow_as_it_was),
	};

	return cmocka_run_group_tests(tests, offload_bench_set_up, offload_bench_tear_down);
}
