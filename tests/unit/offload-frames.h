/*
 * Frames for the tests of the offloads, made the slow and obvious way: checksums by adding bytes,
 * no code of the helper's. Functions fail the test that calls them when something is wrong.
 */
#pragma once

#include "helper/offload.h"

#define FRAME_MTU 1500

/* Zero is a default that makes sense: an IPv4 TCP frame without options, of flow 0. */
struct frame_spec {
	bool is_ipv6;
	bool is_udp;
	bool is_partial;    /* the transport checksum is the pseudo-header's sum only */
	bool may_fragment;  /* IPv4: no DF */
	uint8_t flow;       /* goes into addresses and ports */
	uint8_t flags;      /* TCP */
	uint8_t traffic;    /* TOS or traffic class */
	size_t tags;        /* VLAN */
	size_t ip_options;  /* bytes: IPv4 options (4s), or one IPv6 extension header (8s) */
	size_t tcp_options; /* bytes, 4s */
	uint16_t id;        /* IPv4 */
	uint16_t window;
	uint32_t sequence;
	uint32_t acknowledged;
	size_t payload_length;
};

/* What a test drives: a batch with memory of its own for frames of any size, and a gather. */
struct offload_bench {
	struct offload offload;
	struct batch batch;
	struct gather gather;
	struct direction_counters counters;
};

/* Ends the test program when memory is short. The caller owns it. */
struct offload_bench *offload_bench_new(size_t mtu);
void offload_bench_free(struct offload_bench *bench);

/* For cmocka: a bench with FRAME_MTU as the group's state. */
int offload_bench_set_up(void **state);
int offload_bench_tear_down(void **state);

/* The group's bench, reset. */
struct offload_bench *offload_bench_of(void **state);

/* Forgets batch, gather and counters. */
void offload_bench_reset(struct offload_bench *bench);

/* Calls the function once, after offload_begin() if begins. */
bool offload_bench_fill(struct offload_bench *bench, offload_function function, bool begins);

/* Adds a copy of the bytes as a frame with a header of zeros, and returns it. */
struct frame *offload_bench_add(struct offload_bench *bench, const uint8_t *bytes, size_t length);

/* Adds a frame as specified. */
struct frame *offload_bench_add_spec(struct offload_bench *bench, const struct frame_spec *spec);

/* The same as a frame to be cut, as the kernel hands it over. */
struct frame *offload_bench_add_gso(
	struct offload_bench *bench, struct frame_spec spec, uint16_t gso_size);

uint64_t offload_bench_drops(const struct offload_bench *bench);

/* Writes the frame, whose payload depends on flow and sequence only, and returns its length. */
size_t frame_build(const struct frame_spec *spec, uint8_t *out);

/* Makes the checksums of a built frame right again after a change of its bytes. */
void frame_repair(const struct frame_spec *spec, uint8_t *frame);

/* Bytes before the payload. */
size_t frame_header_size(const struct frame_spec *spec);

/* The GSO header for the frame. */
struct virtio_net_hdr frame_gso_header(const struct frame_spec *spec, uint16_t gso_size);

/* Puts a gathered frame's parts together and returns the length, which it compares with the
 * frame's. */
size_t frame_flatten(const struct gathered_frame *gathered, uint8_t *out);

/* The gathered frame is byte for byte the specified one. */
void frame_expect(const struct gathered_frame *gathered, const struct frame_spec *spec);

/* Its header is all zero. */
void frame_expect_plain(const struct gathered_frame *gathered);

/* The bytes' ones' complement sum, one byte after the other, not complemented. */
uint16_t frame_sum_slowly(uint32_t sum, const uint8_t *bytes, size_t length);
