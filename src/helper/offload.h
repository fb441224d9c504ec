/*
 * Between a TAP, which gives and takes frames of up to 64 KiB with offloads still to be done, and a
 * VM, which may know nothing of that: cuts large frames into such of the network's MTU, joins small
 * ones of one TCP flow into large ones, and completes checksums. Pure: no system call, no
 * allocation, and nothing but the given memory is read or written, whatever the frames' bytes are.
 *
 * What the header means: virtio specification 1.2, 5.1.6, its numbers in the machine's byte order,
 * as a TAP has them; when frames may be joined: Linux's GRO.
 */
#pragma once

#include "helper/port.h"

#include <stdbool.h>

/* USO came with Linux 6.2, and these headers may be older. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

/* What the VM's side does without the helper. */
enum offload_mode {
	OFFLOAD_NONE, /* only finished frames of at most the MTU */
	OFFLOAD_RAW,  /* large frames and partial checksums, but no header that says so (libkrun) */
	OFFLOAD_VNET_HDR, /* everything: the header goes along */
	OFFLOAD_MODE_COUNT,
};

struct offload;

/*
 * Empties gather and puts frames of batch into it, from offload's position on, until it is full or
 * the batch at its end. Edits frames of the batch in place. Frames that can't be passed on (a
 * header that contradicts the frame, longer than the MTU allows, or headers longer than
 * GATHER_HEADER_SIZE) are counted in counters->drops. Returns whether the gather holds anything:
 * false means that the batch is done. What is gathered must be written before the next call.
 */
typedef bool (*offload_function)(struct offload *offload, struct batch *batch,
	struct gather *gather, struct direction_counters *counters);

/* One direction's state, reused for every batch. */
struct offload {
	offload_function fill;
	size_t mtu; /* bytes behind the Ethernet header */
	/* Where fill stands in the batch; offload_begin() resets it. */
	size_t next_frame;
	size_t next_payload_byte;
};

/* Before the first call of fill for a batch. */
static inline void offload_begin(struct offload *offload)
{
	offload->next_frame = 0;
	offload->next_payload_byte = 0;
}

struct offload_functions {
	offload_function host_to_vm;
	offload_function vm_to_host;
};

/* What a mode needs; a mode that is none is a bug of the caller. */
struct offload_functions offload_functions(enum offload_mode mode);

/*
 * Host to VM without offloads. Large frames of TCP and UDP (USO) are cut as Linux cuts them, others
 * get their checksums completed; every gathered frame is finished and has a header of zeros.
 */
bool offload_segment(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters);

/*
 * VM without offloads to host. TCP segments that follow one another in their flow become one large
 * frame with the header for it, whose parts point into the batch; frames that are joined with none
 * stay as they are, with a header of zeros. Those longer than the MTU allows are dropped. Never
 * changes the order within a flow, nor that of other frames. Always takes the whole batch.
 */
bool offload_coalesce(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters);

/* Both ways to a VM that takes the header: as it came. num_buffers becomes 1, which the driver of
 * virtio 1 expects (5.1.6.4), and the TAP, which gives rubbish there, does not read. */
bool offload_pass(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters);

/*
 * Host to a VM that takes large frames without a header: they stay large, with their checksums
 * completed over the whole frame. What USO made large is cut, since it was many datagrams.
 */
bool offload_complete(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters);

/*
 * A VM that sends large frames and partial checksums without a header to the host: the header is
 * made from the frame and the MTU. A TCP frame that is too long becomes segments that fill the MTU,
 * and too long a datagram becomes IP fragments (UFO, which is what libkrun offers its guest; USO
 * cannot be told from it and must not be offered there). Others that are too long are dropped. A
 * guest that made its segments smaller than the MTU for the sake of a narrower path is not heard:
 * how small they were is lost with the header.
 */
bool offload_rebuild(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters);
