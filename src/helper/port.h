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
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * Frames of one batch. A large frame holds 44 of 1514 bytes, so a batch of 64 leaves ragged rests.
 * Through a datagram cable, VM to host, Gbit/s and CPU s/GB, medians of four interleaved rounds
 * (AMD EPYC, 2 cores, Linux 6.18): 64: 2.46, 2.03; 96: 2.63, 1.92; 128: 2.76, 1.89;
 * 192: 2.82, 1.82, within 128's spread. A stream and the other direction don't care.
 */
#define BATCH_FRAMES 128
/* An Ethernet header, which the MTU does not count; shorter frames have no type and go nowhere. */
#define FRAME_HEADER_SIZE 14
/* Largest frame any port can carry: 64 KiB of payload behind an Ethernet header. */
#define FRAME_SIZE_MAX 65550

/*
 * One Ethernet frame as it came, without FCS, in one piece. data points into the batch's memory.
 * header describes offloads that are still to be done; all zero for a plain frame.
 */
struct frame {
	uint8_t *data;
	size_t length;
	struct virtio_net_hdr_mrg_rxbuf header;
};

/* Frames that came, and the memory they lie in: allocated once. */
struct batch {
	struct frame frames[BATCH_FRAMES];
	size_t count;
	uint8_t *memory;
	size_t memory_size;
};

/*
 * One frame to be written, in parts that are written behind one another. parts[0] belongs to the
 * port, which sets there what its transport wants before a frame; the frame begins at parts[1]. The
 * parts of a gather's frames lie behind one another too, so that many frames make one array.
 */
struct gathered_frame {
	struct iovec *parts;
	size_t part_count;  /* with parts[0] */
	size_t length;      /* bytes, without parts[0] */
	size_t frame_count; /* frames of the VM's side that it stands for: for the counters */
	struct virtio_net_hdr_mrg_rxbuf header;
};

/* Cutting needs three parts a frame: the port's, new headers, and a piece of the payload. Joining
 * needs fewer: a piece of each frame of a batch, and the port's. */
#define GATHER_PARTS (3 * BATCH_FRAMES)
/* Ethernet with two VLAN tags, and IPv6 with extension headers or IPv4 with options, and TCP.
 * Larger headers are dropped rather than cut. */
#define GATHER_HEADER_SIZE 256

/* Frames to be written. They point into a batch, and into headers where those are new. */
struct gather {
	struct gathered_frame frames[BATCH_FRAMES];
	size_t count;
	struct iovec parts[GATHER_PARTS];
	size_t part_count;
	uint8_t headers[BATCH_FRAMES][GATHER_HEADER_SIZE];
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

/* Adds each counter of another thread's to a sum of one's own. */
static inline void counters_add(
	struct direction_counters *sum, const struct direction_counters *counters)
{
	counter_add(&sum->packets, atomic_load_explicit(&counters->packets, memory_order_relaxed));
	counter_add(&sum->bytes, atomic_load_explicit(&counters->bytes, memory_order_relaxed));
	counter_add(&sum->drops, atomic_load_explicit(&counters->drops, memory_order_relaxed));
	counter_add(&sum->fast, atomic_load_explicit(&counters->fast, memory_order_relaxed));
	counter_add(&sum->slow, atomic_load_explicit(&counters->slow, memory_order_relaxed));
}

struct port;

struct port_operations {
	const char *name;
	/*
	 * Fills batch from the port without waiting; batch->count frames of at least
	 * FRAME_HEADER_SIZE bytes. Frames that came but cannot be passed on (too short, longer than
	 * the port's limit) are counted in counters->drops and left out. A port is given the same
	 * batch each time and finds the batch's memory behind the last frame as it left it. Returns
	 * 1 when there is likely more, 0 when there is not (fd tells when), -ECONNRESET when the
	 * other side is gone for good, another negative errno when the port can never work again.
	 */
	int (*read_batch)(
		struct port *port, struct batch *batch, struct direction_counters *counters);
	/*
	 * Writes frames [first, gather->count) without waiting, and may change their parts[0].
	 * Returns how many were dealt with, in order: written (and counted), or refused by the
	 * other side for good (EINVAL, too long) and then counted as drops here. Fewer than asked
	 * means the queue is full (0 too), or port_is_stopping(). Negative errno as for read_batch.
	 * With nothing to write it goes on with what has_unsent tells of.
	 */
	ssize_t (*write_batch)(struct port *port, struct gather *gather, size_t first,
		struct direction_counters *counters);
};

struct port {
	const struct port_operations *operations;
	int fd;             /* readable when read_batch has something */
	size_t memory_size; /* bytes that its batch must have */
	/* Half a frame is written; the other half waits until fd is writable. The writing thread's.
	 */
	bool has_unsent;
	/* True once the threads shall end, set by what forwards; NULL: nobody tells. */
	const _Atomic bool *is_stopping;
};

/* Whether a port that needs long for each frame shall write no more. */
static inline bool port_is_stopping(const struct port *port)
{
	return port->is_stopping && atomic_load_explicit(port->is_stopping, memory_order_relaxed);
}
