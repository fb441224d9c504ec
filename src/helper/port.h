/*
 * The helper's platform seam: where frames come from and go to. A port is one end of the cable; forward.c moves
 * batches between two of them and knows nothing else.
 *
 * Thread rules: read_batch is called by one thread, write_batch by one other; a port shares no mutable state
 * between the two. Neither allocates, formats, locks or logs.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Frames of one batch. */
#define BATCH_FRAMES 64
/* Largest frame any port can carry: 64 KiB of payload behind an Ethernet header. */
#define FRAME_SIZE_MAX 65550

/*
 * One Ethernet frame, without FCS. data points into the batch's buffer. header describes offloads that are still to be
 * done; all zero for a plain frame. A port that cannot carry the header gets only plain frames.
 */
struct frame {
	uint8_t *data;
	size_t length;
	struct virtio_net_hdr_mrg_rxbuf header;
};

/* Preallocated once; frames[i].data is set to buffer space of frame_capacity bytes before each read. */
struct batch {
	struct frame frames[BATCH_FRAMES];
	size_t count;
	uint8_t *memory;
	size_t frame_capacity;
};

/* One writer each (the thread of that direction), read by the stats timer: relaxed atomics. */
struct direction_counters {
	_Atomic uint64_t packets;
	_Atomic uint64_t bytes;
	_Atomic uint64_t drops;
	_Atomic uint64_t fast; /* system calls that moved many frames */
	_Atomic uint64_t slow; /* system calls that moved one frame */
};

struct port;

struct port_operations {
	const char *name;
	/*
	 * Fills batch from the port without waiting; batch->count frames, each 1..frame_capacity bytes. Frames that
	 * came but cannot be passed on (empty, longer than the port's limit) are counted in *drops and left out.
	 * Returns 0 (count may be 0: nothing there now), -ECONNRESET when the other side is gone for good, or another
	 * negative errno when the port can never work again.
	 */
	int (*read_batch)(struct port *port, struct batch *batch, struct direction_counters *counters);
	/*
	 * Writes frames [first, batch->count) without waiting. Returns how many were dealt with, in order: written, or
	 * refused by the other side for good (EINVAL, too long) and then counted as drops here. Fewer than asked means
	 * the queue is full (0 too). Negative errno as for read_batch.
	 */
	ssize_t (*write_batch)(struct port *port, const struct batch *batch, size_t first,
		struct direction_counters *counters);
};

struct port {
	const struct port_operations *operations;
	int fd; /* readable when read_batch has something; non-blocking */
};
