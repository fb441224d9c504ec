/* Large frames to finished ones of at most the MTU. */
#include "offload-frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIN 0x01
#define PSH 0x08
#define ACK 0x10
#define CWR 0x80

/* What the segment that begins at first must be. */
static struct frame_spec expected_segment(
	const struct frame_spec *whole, size_t first, uint16_t gso_size)
{
	struct frame_spec spec = *whole;
	size_t left = whole->payload_length - first;

	spec.sequence += (uint32_t)first;
	spec.id += (uint16_t)(first / gso_size);
	spec.payload_length = left < gso_size ? left : gso_size;
	if (first > 0)
		spec.flags &= (uint8_t)~CWR;
	if (left > gso_size)
		spec.flags &= (uint8_t) ~(FIN | PSH);
	return spec;
}

/* Cuts it, in as many calls as it takes, and compares each segment. */
static void expect_cut(
	struct offload_bench *bench, const struct frame_spec *spec, uint16_t gso_size)
{
	size_t first = 0;
	bool begins = true;

	offload_bench_reset(bench);
	offload_bench_add_gso(bench, *spec, gso_size);
	while (offload_bench_fill(bench, offload_segment, begins)) {
		begins = false;
		for (size_t i = 0; i < bench->gather.count; i++, first += gso_size) {
			struct frame_spec segment;

			assert_true(first < spec->payload_length);
			segment = expected_segment(spec, first, gso_size);
			frame_expect(&bench->gather.frames[i], &segment);
			frame_expect_plain(&bench->gather.frames[i]);
		}
	}
	assert_true(first >= spec->payload_length);
	assert_int_equal(offload_bench_drops(bench), 0);
}

static void test_tcp_is_cut(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {
		.flags = ACK | PSH | FIN | CWR,
		.tcp_options = 12,
		.id = 0xfff0,
		.sequence = 0xfffff000,
		.payload_length = 65000,
	};

	expect_cut(bench, &spec, 1448);
	spec.is_ipv6 = true;
	expect_cut(bench, &spec, 1428);
	spec.payload_length = 1428 * 40;
	expect_cut(bench, &spec, 1428);
	spec.payload_length = 1429;
	expect_cut(bench, &spec, 1428);
}

static void test_headers_of_any_kind_are_copied(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	for (unsigned kind = 0; kind < 1 << 6; kind++) {
		bool is_ipv6 = kind & 1;
		struct frame_spec spec = {
			.is_ipv6 = is_ipv6,
			.is_udp = kind & 2,
			.tags = kind >> 2 & 3,
			.ip_options = kind & 16 ? 40 : 0,
			.tcp_options = kind & 32 ? 40 : 0,
			.flags = ACK | PSH,
			.id = 65530,
			.payload_length = 9001,
		};

		if (spec.tags < 3 && !(spec.is_udp && spec.tcp_options))
			expect_cut(bench, &spec, 1201);
	}
}

/* A sender that vouches for the data needs not have left the pseudo-header's sum. */
static void test_the_pseudo_sum_may_be_missing(void **state)
{
	for (unsigned kind = 0; kind < 2; kind++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec spec = {.is_ipv6 = kind, .flags = ACK, .payload_length = 100};
		struct frame *frame = offload_bench_add_gso(bench, spec, 60);

		frame->header.hdr.flags = VIRTIO_NET_HDR_F_DATA_VALID;
		frame->data[frame_header_size(&spec) - 4] ^= 0xff;
		assert_true(offload_bench_fill(bench, offload_segment, true));
		assert_int_equal(bench->gather.count, 2);
		spec.payload_length = 60;
		frame_expect(&bench->gather.frames[0], &spec);
	}
}

static void test_a_large_frame_may_take_many_gathers(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.flags = ACK, .payload_length = 8191, .id = 7};

	expect_cut(bench, &spec, 1);
	spec.payload_length = 65000;
	expect_cut(bench, &spec, 8);
}

static void test_frames_behind_a_large_one_keep_their_order(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec large = {.flags = ACK, .payload_length = 60000};
	struct frame_spec small = {.is_udp = true, .payload_length = 33};
	size_t found = 0;
	bool begins = true;

	for (size_t i = 0; i < BATCH_FRAMES; i++) {
		offload_bench_add_spec(bench, &small);
		offload_bench_add_gso(bench, large, 1448);
		if (bench->batch.count == BATCH_FRAMES)
			break;
	}
	for (; offload_bench_fill(bench, offload_segment, begins); begins = false) {
		for (size_t i = 0; i < bench->gather.count; i++, found++) {
			size_t number = found % 43;
			struct frame_spec segment =
				expected_segment(&large, (number - 1) * 1448, 1448);

			frame_expect(&bench->gather.frames[i], number == 0 ? &small : &segment);
		}
	}
	assert_int_equal(found, BATCH_FRAMES / 2 * 43);
}

static void expect_single(struct offload_bench *bench, const struct frame_spec *spec)
{
	assert_true(offload_bench_fill(bench, offload_segment, true));
	assert_int_equal(bench->gather.count, 1);
	frame_expect(&bench->gather.frames[0], spec);
	frame_expect_plain(&bench->gather.frames[0]);
	assert_false(offload_bench_fill(bench, offload_segment, false));
	assert_int_equal(offload_bench_drops(bench), 0);
}

static void test_a_frame_of_one_segment_is_completed(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.flags = ACK | PSH | CWR, .payload_length = 1000};

	offload_bench_add_gso(bench, spec, 1000);
	expect_single(bench, &spec);
}

static void test_partial_checksums_are_completed(void **state)
{
	for (unsigned kind = 0; kind < 8; kind++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec spec = {
			.is_ipv6 = kind & 1,
			.is_udp = kind & 2,
			.flags = ACK,
			.tags = kind / 4 * 2,
			.payload_length = 77,
		};
		struct frame *frame = offload_bench_add_gso(bench, spec, 0);

		frame->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_NONE;
		expect_single(bench, &spec);
	}
}

/* Changes the frame's first two bytes of payload so that the checksum of the datagram that ends
 * behind them would be zero. */
static void make_checksum_zero(struct frame *frame, const struct frame_spec *datagram)
{
	uint8_t bytes[64];
	size_t length = frame_build(datagram, bytes);
	uint8_t *word = frame->data + length - 2;
	uint32_t sum = (uint32_t)(word[0] << 8 | word[1]);

	assert_int_equal(datagram->payload_length, 2);
	sum = frame_sum_slowly(sum, bytes + length - 4, 2);
	word[0] = (uint8_t)(sum >> 8);
	word[1] = (uint8_t)sum;
}

static void expect_ones(const struct gathered_frame *gathered)
{
	uint8_t found[FRAME_SIZE_MAX];
	size_t length = frame_flatten(gathered, found);

	assert_int_equal(found[length - 4], 0xff);
	assert_int_equal(found[length - 3], 0xff);
}

/* A checksum of zero would say that there is none. */
static void test_a_udp_checksum_is_never_zero(void **state)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec spec = {.is_udp = true, .is_ipv6 = kind & 1};
		struct frame_spec datagram = spec;
		struct frame *frame;

		datagram.payload_length = 2;
		spec.payload_length = kind & 2 ? 4 : 2;
		frame = offload_bench_add_gso(bench, spec, 2);
		make_checksum_zero(frame, &datagram);
		assert_true(offload_bench_fill(bench, offload_segment, true));
		expect_ones(&bench->gather.frames[0]);
	}
}

static void test_plain_frames_pass_as_they_are(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	const uint8_t arp[42] = {[12] = 0x08, [13] = 0x06, [41] = 9};
	uint8_t found[FRAME_SIZE_MAX];

	offload_bench_add(bench, arp, sizeof(arp));
	offload_bench_add(bench, arp, FRAME_HEADER_SIZE);
	assert_true(offload_bench_fill(bench, offload_segment, true));
	assert_int_equal(bench->gather.count, 2);
	assert_int_equal(frame_flatten(&bench->gather.frames[0], found), sizeof(arp));
	assert_memory_equal(found, arp, sizeof(arp));
	assert_int_equal(frame_flatten(&bench->gather.frames[1], found), FRAME_HEADER_SIZE);
}

static void test_the_mtu_counts_no_tags(void **state)
{
	for (size_t tags = 0; tags <= 2; tags++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec spec = {.is_udp = true, .tags = tags, .payload_length = 1472};

		offload_bench_add_spec(bench, &spec);
		expect_single(bench, &spec);
		offload_bench_reset(bench);
		spec.payload_length++;
		offload_bench_add_spec(bench, &spec);
		assert_false(offload_bench_fill(bench, offload_segment, true));
		assert_int_equal(offload_bench_drops(bench), 1);
	}
}

static void expect_drop(struct offload_bench *bench)
{
	assert_false(offload_bench_fill(bench, offload_segment, true));
	assert_int_equal(offload_bench_drops(bench), 1);
	offload_bench_reset(bench);
}

static void test_headers_that_contradict_the_frame_are_dropped(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.flags = ACK, .payload_length = 4000};
	struct frame_spec options = {
		.is_ipv6 = true, .ip_options = 208, .flags = ACK, .payload_length = 4000};

	offload_bench_add_gso(bench, spec, 0);
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1461);
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_UDP;
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->header.hdr.csum_start++;
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->header.hdr.csum_offset = 6;
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->length = 50;
	expect_drop(bench);
	offload_bench_add_gso(bench, spec, 1000)->data[20] = 0x20; /* more fragments */
	expect_drop(bench);
	offload_bench_add_gso(bench, options, 1000);
	expect_drop(bench);
	spec.payload_length = 60000;
	offload_bench_add_gso(bench, spec, 7);
	expect_drop(bench);
}

static void test_checksum_places_outside_the_frame_are_dropped(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.flags = ACK, .payload_length = 10};
	struct frame *frame = offload_bench_add_gso(bench, spec, 0);

	frame->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_NONE;
	frame->header.hdr.csum_start = (uint16_t)(frame->length - 17);
	expect_drop(bench);
	frame = offload_bench_add_gso(bench, spec, 0);
	frame->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_NONE;
	frame->header.hdr.csum_start = 65535;
	frame->header.hdr.csum_offset = 65535;
	expect_drop(bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp_is_cut),
		cmocka_unit_test(test_headers_of_any_kind_are_copied),
		cmocka_unit_test(test_the_pseudo_sum_may_be_missing),
		cmocka_unit_test(test_a_large_frame_may_take_many_gathers),
		cmocka_unit_test(test_frames_behind_a_large_one_keep_their_order),
		cmocka_unit_test(test_a_frame_of_one_segment_is_completed),
		cmocka_unit_test(test_partial_checksums_are_completed),
		cmocka_unit_test(test_a_udp_checksum_is_never_zero),
		cmocka_unit_test(test_plain_frames_pass_as_they_are),
		cmocka_unit_test(test_the_mtu_counts_no_tags),
		cmocka_unit_test(test_headers_that_contradict_the_frame_are_dropped),
		cmocka_unit_test(test_checksum_places_outside_the_frame_are_dropped),
	};

	return cmocka_run_group_tests(tests, offload_bench_set_up, offload_bench_tear_down);
}
