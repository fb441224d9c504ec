#include "offload-frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ETHERNET_SIZE 14

uint16_t frame_sum_slowly(uint32_t sum, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
		if (sum > 0xffff)
			sum -= 0xffff;
	}
	return (uint16_t)sum;
}

static void put16(uint8_t *out, size_t value)
{
	out[0] = (uint8_t)(value >> 8);
	out[1] = (uint8_t)value;
}

static void put32(uint8_t *out, uint32_t value)
{
	put16(out, value >> 16);
	put16(out + 2, value & 0xffff);
}

static size_t ip_offset(const struct frame_spec *spec)
{
	return ETHERNET_SIZE + 4 * spec->tags;
}

static size_t transport_offset(const struct frame_spec *spec)
{
	return ip_offset(spec) + (spec->is_ipv6 ? 40 : 20) + spec->ip_options;
}

size_t frame_header_size(const struct frame_spec *spec)
{
	return transport_offset(spec) + (spec->is_udp ? 8 : 20 + spec->tcp_options);
}

static size_t transport_length(const struct frame_spec *spec)
{
	return frame_header_size(spec) - transport_offset(spec) + spec->payload_length;
}

static uint8_t protocol_of(const struct frame_spec *spec)
{
	return spec->is_udp ? 17 : 6;
}

static void put_ethernet(const struct frame_spec *spec, uint8_t *out)
{
	static const uint8_t addresses[] = {0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2};

	memcpy(out, addresses, sizeof(addresses));
	for (size_t i = 0; i < spec->tags; i++) {
		put16(out + 12 + 4 * i, i + 1 < spec->tags ? 0x88a8 : 0x8100);
		put16(out + 14 + 4 * i, 100 + i);
	}
	put16(out + ip_offset(spec) - 2, spec->is_ipv6 ? 0x86dd : 0x0800);
}

static void put_ipv4(const struct frame_spec *spec, uint8_t *ip)
{
	ip[0] = (uint8_t)(0x45 + spec->ip_options / 4);
	ip[1] = spec->traffic;
	put16(ip + 2, 20 + spec->ip_options + transport_length(spec));
	put16(ip + 4, spec->id);
	put16(ip + 6, spec->may_fragment ? 0 : 0x4000);
	ip[8] = 64;
	ip[9] = protocol_of(spec);
	put32(ip + 12, 0x0a000001);
	put32(ip + 16, 0x0a000100 + spec->flow);
	memset(ip + 20, 1, spec->ip_options); /* "no operation" */
}

static void put_ipv6(const struct frame_spec *spec, uint8_t *ip)
{
	ip[0] = (uint8_t)(0x60 | spec->traffic >> 4);
	ip[1] = (uint8_t)(spec->traffic << 4);
	put16(ip + 2, 0x1234);
	put16(ip + 4, spec->ip_options + transport_length(spec));
	ip[6] = spec->ip_options ? 60 : protocol_of(spec);
	ip[7] = 64;
	ip[8] = 0xfd;
	ip[23] = 1;
	ip[24] = 0xfd;
	ip[39] = spec->flow;
	if (spec->ip_options) {
		ip[40] = protocol_of(spec);
		ip[41] = (uint8_t)(spec->ip_options / 8 - 1);
	}
}

static void put_transport(const struct frame_spec *spec, uint8_t *out)
{
	put16(out, 40000 + spec->flow);
	put16(out + 2, 5201);
	if (spec->is_udp) {
		put16(out + 4, transport_length(spec));
		return;
	}
	put32(out + 4, spec->sequence);
	put32(out + 8, spec->acknowledged);
	out[12] = (uint8_t)((20 + spec->tcp_options) / 4 << 4);
	out[13] = spec->flags;
	put16(out + 14, spec->window);
	memset(out + 20, 1, spec->tcp_options); /* "no operation" */
}

static void put_payload(const struct frame_spec *spec, uint8_t *out)
{
	for (size_t i = 0; i < spec->payload_length; i++) {
		uint32_t place = spec->sequence + (uint32_t)i;

		out[i] = (uint8_t)((place * 2654435761u >> 24) ^ spec->flow);
	}
}

static uint16_t pseudo_sum(const struct frame_spec *spec, const uint8_t *ip)
{
	uint16_t sum =
		spec->is_ipv6 ? frame_sum_slowly(0, ip + 8, 32) : frame_sum_slowly(0, ip + 12, 8);
	uint8_t rest[] = {0, 0, 0, protocol_of(spec)};

	put16(rest, transport_length(spec));
	return frame_sum_slowly(sum, rest, sizeof(rest));
}

static void put_checksum(const struct frame_spec *spec, uint8_t *frame)
{
	uint8_t *transport = frame + transport_offset(spec);
	uint8_t *field = transport + (spec->is_udp ? 6 : 16);
	uint16_t sum = pseudo_sum(spec, frame + ip_offset(spec));

	if (!spec->is_partial) {
		sum = (uint16_t)~frame_sum_slowly(sum, transport, transport_length(spec));
		if (sum == 0 && spec->is_udp)
			sum = 0xffff;
	}
	put16(field, sum);
}

void frame_repair(const struct frame_spec *spec, uint8_t *frame)
{
	uint8_t *ip = frame + ip_offset(spec);

	put16(frame + transport_offset(spec) + (spec->is_udp ? 6 : 16), 0);
	put_checksum(spec, frame);
	if (spec->is_ipv6)
		return;
	put16(ip + 10, 0);
	put16(ip + 10, (uint16_t)~frame_sum_slowly(0, ip, 20 + spec->ip_options));
}

size_t frame_build(const struct frame_spec *spec, uint8_t *out)
{
	size_t length = frame_header_size(spec) + spec->payload_length;

	memset(out, 0, length);
	put_ethernet(spec, out);
	if (spec->is_ipv6)
		put_ipv6(spec, out + ip_offset(spec));
	else
		put_ipv4(spec, out + ip_offset(spec));
	put_transport(spec, out + transport_offset(spec));
	put_payload(spec, out + frame_header_size(spec));
	frame_repair(spec, out);
	return length;
}

struct virtio_net_hdr frame_gso_header(const struct frame_spec *spec, uint16_t gso_size)
{
	uint8_t tcp_type = spec->is_ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;

	return (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = spec->is_udp ? VIRTIO_NET_HDR_GSO_UDP_L4 : tcp_type,
		.hdr_len = (uint16_t)frame_header_size(spec),
		.gso_size = gso_size,
		.csum_start = (uint16_t)transport_offset(spec),
		.csum_offset = spec->is_udp ? 6 : 16,
	};
}

struct offload_bench *offload_bench_new(size_t mtu)
{
	struct offload_bench *bench = calloc(1, sizeof(*bench));

	if (!bench)
		abort();
	bench->offload.mtu = mtu;
	bench->batch.memory_size = (size_t)BATCH_FRAMES * FRAME_SIZE_MAX;
	bench->batch.memory = malloc(bench->batch.memory_size);
	if (!bench->batch.memory)
		abort();
	return bench;
}

void offload_bench_free(struct offload_bench *bench)
{
	free(bench->batch.memory);
	free(bench);
}

int offload_bench_set_up(void **state)
{
	*state = offload_bench_new(FRAME_MTU);
	return 0;
}

int offload_bench_tear_down(void **state)
{
	offload_bench_free(*state);
	return 0;
}

struct offload_bench *offload_bench_of(void **state)
{
	struct offload_bench *bench = *state;

	offload_bench_reset(bench);
	return bench;
}

void offload_bench_reset(struct offload_bench *bench)
{
	bench->batch.count = 0;
	bench->gather.count = 0;
	bench->gather.part_count = 0;
	memset(&bench->counters, 0, sizeof(bench->counters));
}

bool offload_bench_fill(struct offload_bench *bench, offload_function function, bool begins)
{
	if (begins)
		offload_begin(&bench->offload);
	return function(&bench->offload, &bench->batch, &bench->gather, &bench->counters);
}

/* Frames end where their memory does, at odd places too. */
static struct frame *add_room(struct offload_bench *bench, size_t length)
{
	struct batch *batch = &bench->batch;
	struct frame *frame = &batch->frames[batch->count];
	uint8_t *slot = batch->memory + batch->count * FRAME_SIZE_MAX;

	assert_true(batch->count < BATCH_FRAMES);
	assert_true(length <= FRAME_SIZE_MAX);
	batch->count++;
	*frame = (struct frame){.data = slot + FRAME_SIZE_MAX - length, .length = length};
	return frame;
}

struct frame *offload_bench_add(struct offload_bench *bench, const uint8_t *bytes, size_t length)
{
	struct frame *frame = add_room(bench, length);

	memcpy(frame->data, bytes, length);
	return frame;
}

struct frame *offload_bench_add_spec(struct offload_bench *bench, const struct frame_spec *spec)
{
	struct frame *frame = add_room(bench, frame_header_size(spec) + spec->payload_length);

	frame_build(spec, frame->data);
	return frame;
}

struct frame *offload_bench_add_gso(
	struct offload_bench *bench, struct frame_spec spec, uint16_t gso_size)
{
	struct frame *frame;

	spec.is_partial = true;
	frame = offload_bench_add_spec(bench, &spec);
	frame->header.hdr = frame_gso_header(&spec, gso_size);
	return frame;
}

uint64_t offload_bench_drops(const struct offload_bench *bench)
{
	return atomic_load_explicit(&bench->counters.drops, memory_order_relaxed);
}

size_t frame_flatten(const struct gathered_frame *gathered, uint8_t *out)
{
	size_t length = 0;

	assert_true(gathered->part_count >= 2);
	assert_int_equal(gathered->parts[0].iov_len, 0);
	for (size_t i = 1; i < gathered->part_count; i++) {
		const struct iovec *part = &gathered->parts[i];

		assert_true(part->iov_len > 0);
		assert_true(length + part->iov_len <= FRAME_SIZE_MAX);
		memcpy(out + length, part->iov_base, part->iov_len);
		length += part->iov_len;
	}
	assert_int_equal(gathered->length, length);
	return length;
}

void frame_expect(const struct gathered_frame *gathered, const struct frame_spec *spec)
{
	uint8_t found[FRAME_SIZE_MAX];
	uint8_t expected[FRAME_SIZE_MAX];
	size_t length = frame_flatten(gathered, found);

	assert_int_equal(length, frame_build(spec, expected));
	assert_memory_equal(found, expected, length);
}

void frame_expect_plain(const struct gathered_frame *gathered)
{
	const struct virtio_net_hdr_mrg_rxbuf zeros = {0};

	assert_memory_equal(&gathered->header, &zeros, sizeof(zeros));
	assert_int_equal(gathered->frame_count, 1);
}
