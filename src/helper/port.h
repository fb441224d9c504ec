/*
 * The helper's platform seam: where frames come from and go to. A port is one end of the cable;
 * forward.c moves batches between two of them and knows nothing else.
 *
 * Thread rules: read_batch is called by one thread, write_batch by one other; a port shares no
 * mutable state between the two. Neither allocates, formats, locks or logs.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Frames of one batch. CPU s/GB of a datagram socket, sending + receiving 1514-byte frames, best of
 * 25 rounds (Linux 6.18, x86-64): 1: 1.39+1.30, 8: 0.63+0.56, 16: 0.57+0.51, 32: 0.55+0.50,
 * 64: 0.54+0.49, 128: 0.56+0.50, 256: 0.54+0.50. Beyond 64 only the latency grows.
 */
#define BATCH_FRAMES 64
/* An Ethernet header, which the MTU does not count; shorter frames have no type and go nowhere. */
#define FRAME_HEADER_SIZE 14
/* Largest frame any port can carry: 64 KiB of payload behind an Ethernet header. */
#define FRAME_SIZE_MAX 65550

/*
 * One Ethernet frame, without FCS. data points into the batch's buffer. header describes offloads
 * that are still to be done; all zero for a plain frame. A port that cannot carry the header gets
 * only plain frames.
 */
struct frame {
	uint8_t *data;
	size_t length;
	struct virtio_net_hdr_mrg_rxbuf header;
};

/* Preallocated once; frames[i].data is set to buffer space of frame_capacity bytes before each
 * read. */
struct batch {
	struct frame frames[BATCH_FRAMES];
	size_t count;
	uint8_t *memory;
	size_t frame_capacity;
};

/* One writer each (the thread of that direction), read by the stats timer: relaxed atomics. */
struct direction_counters {
	_Atomic uint64_t packets; /* frames delivered */
	_Atomic uint64_t bytes;   /* their bytes */
	_Atomic uint64_t drops;   /* frames that came and were not delivered */
	/* How well batches fill. A TAP only knows calls of one frame, so sockets alone count here.
	 */
	_Atomic uint64_t fast; /* system calls that moved many frames */
	_Atomic uint64_t slow; /* system calls that moved one frame */
};

/* Adds to a counter of which the caller is the only writer: no locked instruction is needed. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t amount)
{
	uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, before + amount, memory_order_relaxed);
}

struct port;

struct port_operations {
	const char *name;
	/*
	 * Fills batch from the port without waiting; batch->count frames, each FRAME_HEADER_SIZE..
	 * frame_capacity bytes. Frames that came but cannot be passed on (too short, longer than
	 * the port's limit) are counted in counters->drops and left out. Returns 0 (count may be 0:
	 * nothing there now), -ECONNRESET when the other side is gone for good, or another negative
	 * errno when the port can never work again.
	 */
	int (*read_batch)(
		struct port *port, struct batch *batch, struct direction_counters *counters);
	/*
	 * Writes frames [first, batch->count) without waiting. Returns how many were dealt with, in
	 * order: written (and counted), or refused by the other side for good (EINVAL, too long)
	 * and then counted as drops here. Fewer than asked means the queue is full (0 too).
	 * Negative errno as for read_batch.
	 */
	ssize_t (*write_batch)(struct port *port, const struct batch *batch, size_t first,
		struct direction_counters *counters);
};

struct port {
	const struct port_operations *operations;
	int fd; /* readable when read_batch has something */
};
