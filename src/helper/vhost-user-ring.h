/*
 * A split virtqueue, seen from the device (virtio specification 1.2, section 2.7). Everything in it
 * but the used ring is written by the guest at any time: each value is read once and checked before
 * use, and what the guest can't have meant is a fault (-EPROTO), after which the queue has to stop.
 *
 * Buffers are used in the order in which they came, so that one position tells all: before it
 * everything is used, behind it nothing. Used by one thread at a time. No system calls.
 */
#pragma once

#include "helper/vhost-user-memory.h"

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <sys/uio.h>

/* readv(2) and writev(2) take no more (IOV_MAX). */
#define VHOST_USER_PARTS_MAX 1024
/* Largest split ring (virtio 1.2, 2.7). */
#define VHOST_USER_RING_SIZE_MAX 32768

/* Where a ring is, in the front-end's own addresses, and what was negotiated for it. */
struct vhost_user_ring_place {
	uint32_t size; /* entries, a power of two */
	uint64_t descriptors;
	uint64_t avail;
	uint64_t used;
	bool has_event_index;
	bool has_indirect;
};

struct vhost_user_ring {
	const struct vhost_user_memory *memory;
	const volatile uint8_t *descriptors;
	const struct vring_avail *avail;
	struct vring_used *used;
	uint32_t size;
	bool has_event_index;
	bool has_indirect;
	uint16_t next_avail; /* the next to fetch */
	uint16_t seen_avail; /* the guest's index when we last looked */
	uint16_t next_used;  /* the next to use; as all are used in order, also the position */
	uint16_t published;  /* up to here the guest knows */
	/* What the guest did wrong: a text without end of line, set with -EPROTO. */
	const char *fault;
};

/* What the guest lets us do with a buffer. */
enum vhost_user_access {
	VHOST_USER_READ,  /* its frames for us */
	VHOST_USER_WRITE, /* room for our frames */
};

/* One fetched chain of descriptors. */
struct vhost_user_chain {
	uint16_t head;
	uint16_t part_count;
	uint64_t size; /* bytes of all parts */
};

/*
 * Finds the ring in memory, which stays the caller's, and begins at position. -EINVAL for a size or
 * an alignment that no ring has, -EFAULT when it isn't wholly in one region each.
 */
int vhost_user_ring_init(struct vhost_user_ring *ring, const struct vhost_user_memory *memory,
	const struct vhost_user_ring_place *place, uint16_t position);

/* The used index that stands in the guest's memory: where a device that ended went off. */
uint16_t vhost_user_ring_stored_position(const struct vhost_user_ring *ring);

/*
 * Fetches the next chain, whose parts are put into parts. Returns 1; 0 when the guest has given no
 * more; -ENOBUFS when it has more than parts_max (<= VHOST_USER_PARTS_MAX) parts, and it is the
 * next one still; -EPROTO.
 */
int vhost_user_ring_fetch(struct vhost_user_ring *ring, enum vhost_user_access access,
	struct iovec *parts, size_t parts_max, struct vhost_user_chain *ret_chain);

/* Gives a fetched chain back, with size bytes written to it. The guest sees it when published. */
void vhost_user_ring_use(struct vhost_user_ring *ring, uint16_t head, uint32_t size);

/* Shows the guest everything used so far. Returns whether it wants to be called for that. */
bool vhost_user_ring_publish(struct vhost_user_ring *ring);

/* Asks the guest to kick when it gives more. Returns true when there is more already, so that no
 * kick may come. */
bool vhost_user_ring_arm(struct vhost_user_ring *ring);

/* Asks the guest not to kick. */
void vhost_user_ring_disarm(struct vhost_user_ring *ring);
