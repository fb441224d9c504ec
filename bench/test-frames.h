/*
 * Frames that the benchmark makes itself, where no TCP of a kernel is wanted in the measurement.
 */
#pragma once

#include "base/text.h"
#include "endpoint.h"

#include <netinet/in.h>

/* Both ends of a made flow. */
struct flow {
	struct mac source_mac;
	struct mac destination_mac;
	struct in_addr source;
	struct in_addr destination;
	uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP or IPPROTO_ICMP */
};

/*
 * Fills a burst with BURST_FRAMES finished frames of size bytes (60 to the slots' size): UDP
 * datagrams, or TCP segments with sequence numbers from 0 on.
 */
void test_frames_fill(struct burst *burst, const struct flow *flow, size_t size);

/* Moves a burst of TCP segments on by as many bytes as it carries, checksums too. */
void test_frames_advance(struct burst *burst);

/* Writes an ICMP echo request of size bytes (at least 60) into frame (RFC 792). */
void test_frame_echo_request(
	uint8_t *frame, size_t size, const struct flow *flow, uint16_t id, uint16_t sequence);

/* Whether a frame is the reply to that request. */
bool test_frame_is_echo_reply(const struct burst_frame *frame, uint16_t id, uint16_t sequence);
