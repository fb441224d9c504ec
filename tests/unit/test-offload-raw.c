/* A VM that takes and sends large frames without a header, and one that takes the header. */
#include "offload-frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ACK 0x10
#define CWR 0x80

static struct frame_spec spec_of_kind(unsigned kind, size_t payload_length)
{
	return (struct frame_spec){
		.is_ipv6 = kind & 1,
		.is_udp = kind & 2,
		.tags = kind >> 2 & 1,
		.tcp_options = kind & 2 ? 0 : 12,
		.flags = ACK,
		.payload_length = payload_length,
	};
}

static void fill_one(struct offload_bench *bench, offload_function function)
{
	assert_true(offload_bench_fill(bench, function, true));
	assert_int_equal(bench->gather.count, 1);
	assert_int_equal(offload_bench_drops(bench), 0);
}

static void expect_drop(struct offload_bench *bench, offload_function function)
{
	assert_false(offload_bench_fill(bench, function, true));
	assert_int_equal(offload_bench_drops(bench), 1);
	offload_bench_reset(bench);
}

static void test_every_mode_has_its_functions(void **state)
{
	const struct offload_functions none = offload_functions(OFFLOAD_NONE);
	const struct offload_functions raw = offload_functions(OFFLOAD_RAW);
	const struct offload_functions header = offload_functions(OFFLOAD_VNET_HDR);

	assert_ptr_equal(none.host_to_vm, offload_segment);
	assert_ptr_equal(none.vm_to_host, offload_coalesce);
	assert_ptr_equal(raw.host_to_vm, offload_complete);
	assert_ptr_equal(raw.vm_to_host, offload_rebuild);
	assert_ptr_equal(header.host_to_vm, offload_pass);
	assert_ptr_equal(header.vm_to_host, offload_pass);
}

static void test_the_header_goes_along(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = spec_of_kind(0, 40000);
	struct virtio_net_hdr_mrg_rxbuf header = {
		.hdr = frame_gso_header(&spec, 1448), .num_buffers = 1};

	spec.is_partial = true;
	offload_bench_add_gso(bench, spec, 1448)->header.num_buffers = 0x5555;
	fill_one(bench, offload_pass);
	frame_expect(&bench->gather.frames[0], &spec);
	assert_memory_equal(&bench->gather.frames[0].header, &header, sizeof(header));
	assert_false(offload_bench_fill(bench, offload_pass, false));
}

static void test_large_frames_are_completed_whole(void **state)
{
	for (unsigned kind = 0; kind < 8; kind++) {
		struct offload_bench *bench = offload_bench_of(state);
		struct frame_spec spec = spec_of_kind(kind, kind & 2 ? 1000 : 50000);
		struct frame *frame = offload_bench_add_gso(bench, spec, 1400);

		if (spec.is_udp)
			frame->header.hdr.gso_type = VIRTIO_NET_HDR_GSO_NONE;
		fill_one(bench, offload_complete);
		frame_expect(&bench->gather.frames[0], &spec);
		frame_expect_plain(&bench->gather.frames[0]);
	}
}

static void test_datagrams_are_never_joined_for_good(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.is_udp = true, .id = 3, .payload_length = 2500};

	offload_bench_add_gso(bench, spec, 1000);
	assert_true(offload_bench_fill(bench, offload_complete, true));
	assert_int_equal(bench->gather.count, 3);
	for (size_t i = 0; i < 3; i++) {
		spec.payload_length = i < 2 ? 1000 : 500;
		frame_expect(&bench->gather.frames[i], &spec);
		spec.sequence += 1000;
		spec.id++;
	}
}

static void test_frames_that_contradict_themselves_are_dropped(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.payload_length = 100};

	offload_bench_add_gso(bench, spec, 1000)->header.hdr.csum_start = 65535;
	expect_drop(bench, offload_complete);
}

static void expect_rebuilt(
	struct offload_bench *bench, struct frame_spec spec, struct virtio_net_hdr header)
{
	struct virtio_net_hdr_mrg_rxbuf expected = {.hdr = header};

	offload_bench_reset(bench);
	offload_bench_add_spec(bench, &spec);
	fill_one(bench, offload_rebuild);
	frame_expect(&bench->gather.frames[0], &spec);
	assert_memory_equal(&bench->gather.frames[0].header, &expected, sizeof(expected));
}

static void test_partial_checksums_get_a_header(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	for (unsigned kind = 0; kind < 8; kind++) {
		struct frame_spec spec = spec_of_kind(kind, 333);
		struct virtio_net_hdr header = frame_gso_header(&spec, 0);

		header.gso_type = VIRTIO_NET_HDR_GSO_NONE;
		header.hdr_len = 0;
		expect_rebuilt(bench, spec, (struct virtio_net_hdr){0});
		spec.is_partial = true;
		expect_rebuilt(bench, spec, header);
	}
}

static void test_large_tcp_frames_fill_the_mtu(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	for (unsigned kind = 0; kind < 8; kind++) {
		struct frame_spec spec = spec_of_kind(kind & 5, 60000);
		size_t ip_and_tcp = frame_header_size(&spec) - 14 - 4 * spec.tags;
		struct virtio_net_hdr header =
			frame_gso_header(&spec, (uint16_t)(FRAME_MTU - ip_and_tcp));

		spec.is_partial = true;
		if (kind & 2) {
			spec.flags |= CWR;
			header.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
		}
		expect_rebuilt(bench, spec, header);
	}
}

static void test_large_datagrams_become_fragments(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);

	for (unsigned kind = 2; kind < 4; kind++) {
		struct frame_spec spec = spec_of_kind(kind, 20000);
		/* 1500 - 20; 1500 - 40 - 8 for the fragment header; multiples of 8. */
		struct virtio_net_hdr header = frame_gso_header(&spec, spec.is_ipv6 ? 1448 : 1480);

		header.gso_type = VIRTIO_NET_HDR_GSO_UDP;
		spec.is_partial = true;
		expect_rebuilt(bench, spec, header);
	}
}

static void test_what_nobody_may_cut_is_dropped(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = spec_of_kind(0, 5000);
	struct frame *frame = offload_bench_add_spec(bench, &spec);

	/* Its checksum is there, so nobody offered to cut it. */
	expect_drop(bench, offload_rebuild);
	spec.is_partial = true;
	frame = offload_bench_add_spec(bench, &spec);
	frame->data[14 + 6] |= 0x20; /* a fragment */
	expect_drop(bench, offload_rebuild);
	spec.is_ipv6 = true;
	spec.ip_options = 8;
	frame = offload_bench_add_spec(bench, &spec);
	frame->data[14 + 6] = 44; /* a fragment */
	expect_drop(bench, offload_rebuild);
	spec = (struct frame_spec){.is_partial = true, .payload_length = 5000};
	frame = offload_bench_add_spec(bench, &spec);
	frame->data[13] = 0x06; /* ARP */
	expect_drop(bench, offload_rebuild);
	frame = offload_bench_add_spec(bench, &spec);
	frame->data[14 + 9] = 132; /* SCTP */
	expect_drop(bench, offload_rebuild);
}

/* There is no checksum in other protocols that the kernel could complete there. */
static void test_only_tcp_and_udp_get_a_header(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	struct frame_spec spec = {.is_udp = true, .is_partial = true, .payload_length = 50};
	struct frame *frame = offload_bench_add_spec(bench, &spec);

	frame->data[14 + 9] += 30;          /* the protocol */
	frame->data[14 + 20 + 6 + 1] += 30; /* what would be its pseudo-header's sum */
	assert_true(frame->data[14 + 20 + 6 + 1] >= 30);
	fill_one(bench, offload_rebuild);
	frame_expect_plain(&bench->gather.frames[0]);
}

static void test_other_frames_pass(void **state)
{
	struct offload_bench *bench = offload_bench_of(state);
	const uint8_t arp[60] = {[12] = 0x08, [13] = 0x06};

	offload_bench_add(bench, arp, sizeof(arp));
	offload_bench_add(bench, arp, FRAME_HEADER_SIZE);
	assert_true(offload_bench_fill(bench, offload_rebuild, true));
	assert_int_equal(bench->gather.count, 2);
	frame_expect_plain(&bench->gather.frames[0]);
	frame_expect_plain(&bench->gather.frames[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_mode_has_its_functions),
		cmocka_unit_test(test_the_header_goes_along),
		cmocka_unit_test(test_large_frames_are_completed_whole),
		cmocka_unit_test(test_datagrams_are_never_joined_for_good),
		cmocka_unit_test(test_frames_that_contradict_themselves_are_dropped),
		cmocka_unit_test(test_partial_checksums_get_a_header),
		cmocka_unit_test(test_large_tcp_frames_fill_the_mtu),
		cmocka_unit_test(test_large_datagrams_become_fragments),
		cmocka_unit_test(test_what_nobody_may_cut_is_dropped),
		cmocka_unit_test(test_only_tcp_and_udp_get_a_header),
		cmocka_unit_test(test_other_frames_pass),
	};

	return cmocka_run_group_tests(tests, offload_bench_set_up, offload_bench_tear_down);
}
