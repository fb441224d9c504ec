/*
 * One virtqueue of the device and the thread that moves its frames between guest memory and the
 * TAP: to the VM with readv(2) straight into the guest's buffers, to the host with writev(2)
 * straight out of them (virtio specification 1.2, 5.1.6). The thread lives while the ring is
 * usable; what the messages change, they change while it does not.
 */
#pragma once

#include "helper/forward.h"
#include "helper/vhost-user-ring.h"

/* The largest frame behind a TAP's header, with a VLAN tag. */
#define VHOST_USER_FRAME_MAX (FRAME_SIZE_MAX + 4)
/* With VERSION_1 or MRG_RXBUF; the legacy header lacks the count of buffers. */
#define VHOST_USER_HEADER_SIZE        sizeof(struct virtio_net_hdr_mrg_rxbuf)
#define VHOST_USER_LEGACY_HEADER_SIZE sizeof(struct virtio_net_hdr)

/* The guest's buffers for frames, fetched ahead: a frame's size is known only after it was read. */
struct vhost_user_stage {
	struct iovec parts[2 * VHOST_USER_PARTS_MAX];
	size_t part_first, part_end;
	struct vhost_user_chain chains[2 * VHOST_USER_PARTS_MAX];
	size_t chain_first, chain_end;
	uint64_t size;     /* bytes of all parts */
	uint64_t size_min; /* bytes wanted before a frame is read */
	/* Takes what the buffers can't, so that the length tells it. */
	uint8_t spill[VHOST_USER_HEADER_SIZE + VHOST_USER_FRAME_MAX];
};

/*
 * What the front-end said. STOPPED: no thread; leaves when everything needed has been said.
 * RUNNING: a thread owns the ring; leaves by a message or the guest's fault. BROKEN: the guest's
 * fault ended the thread; leaves when the front-end sets the ring up again.
 */
enum vhost_user_queue_state {
	VHOST_USER_QUEUE_STOPPED,
	VHOST_USER_QUEUE_RUNNING,
	VHOST_USER_QUEUE_BROKEN,
};

struct vhost_user_queue {
	/* For the protocol side alone. */
	enum direction direction;
	enum vhost_user_queue_state state;
	struct vhost_user_ring_place place;
	uint16_t position; /* where the ring begins or went off */
	bool is_new;       /* set up since it ran last: the position may be in the guest's memory */
	uint64_t breaks;   /* how often the guest broke it */
	pthread_t thread;
	/* Set before the thread starts. */
	int tap; /* not ours */
	int kick, call, failure;
	int stop_event;  /* readable when the thread shall end */
	int ended_event; /* not ours; readable when some thread ended by itself */
	bool is_enabled; /* otherwise the guest's frames are thrown away, and it gets none */
	bool has_merging;
	size_t header_size;
	size_t frame_max; /* bytes behind the header */
	/* The thread's own while it runs. */
	struct vhost_user_ring ring;
	uint32_t pending_frames, pending_bytes; /* since the guest was told */
	struct vhost_user_stage *stage;         /* host->vm */
	struct iovec *parts;                    /* vm->host */
	/* Both sides'. */
	struct direction_counters counters;
	_Atomic bool is_stopping;
	_Atomic int
		result; /* why the thread ended by itself: -EPROTO the guest, or the TAP's errno */
};

/*
 * Prepares a queue: allocates all that its thread will need. tap and ended_event stay the caller's
 * and must outlive it. Negative errno, and vhost_user_queue_done() is still to be called.
 */
int vhost_user_queue_init(
	struct vhost_user_queue *queue, enum direction direction, int tap, int ended_event);

/* Ends the thread and frees everything. Accepts a zeroed one whose fds are -1. */
void vhost_user_queue_done(struct vhost_user_queue *queue);

/* Ends the thread, if it runs, and waits for it: for one frame's system call at most. Keeps the
 * position. */
void vhost_user_queue_pause(struct vhost_user_queue *queue);

/*
 * Starts the thread if all it needs is known: ring, kick and memory, which stays the caller's. A
 * queue that lacks something stays stopped and that is no error. Negative errno of
 * pthread_create(3).
 */
int vhost_user_queue_resume(struct vhost_user_queue *queue, const struct vhost_user_memory *memory);

/* Begins the ring anew, at position at the earliest; also one that the guest broke. The queue must
 * be paused. */
void vhost_user_queue_begin(struct vhost_user_queue *queue, uint16_t position);

/* Stops the ring until it gets another kick, and keeps the position. The queue must be paused. */
void vhost_user_queue_halt(struct vhost_user_queue *queue);

/* Forgets what a front-end said. The queue must be paused. Counters stay. */
void vhost_user_queue_reset(struct vhost_user_queue *queue);

/* The thread's work for each direction: until it shall stop (0), or a negative errno. */
int vhost_user_queue_fill(struct vhost_user_queue *queue);  /* host->vm */
int vhost_user_queue_drain(struct vhost_user_queue *queue); /* vm->host */

/* For both directions, in the thread. */
static inline bool vhost_user_queue_is_stopping(const struct vhost_user_queue *queue)
{
	return atomic_load_explicit(&queue->is_stopping, memory_order_relaxed);
}

/* Shows the guest what was used since the last time, and calls it if it wants that. */
void vhost_user_queue_publish(struct vhost_user_queue *queue);

/* Counts a frame that was used, and publishes when enough came together. */
void vhost_user_queue_count(struct vhost_user_queue *queue, size_t bytes);

/*
 * Waits for fd to be readable, or the end, or timeout_ms (-1: as long as it takes). Returns 1 when
 * it is readable, 0 otherwise, -EPIPE when fd never will be.
 */
int vhost_user_queue_wait(struct vhost_user_queue *queue, int fd, int timeout_ms);

/* Waits for the guest to give more buffers. As vhost_user_queue_wait(). */
int vhost_user_queue_wait_for_kick(struct vhost_user_queue *queue, int timeout_ms);
