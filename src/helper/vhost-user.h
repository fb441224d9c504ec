/*
 * A virtio network device for a VM program that speaks vhost-user (QEMU, Cloud Hypervisor, crosvm):
 * the cable between the guest's own rings and a TAP. Frames go between guest memory and the TAP
 * without a copy of ours, large ones whole, with the offloads that guest and TAP agree on.
 *
 * The messages are handled in the caller's loop, and none of them makes it wait: the socket doesn't
 * block, and a queue's thread ends within one frame's system call. Each ring that is in use has a
 * thread, so no direction and no queue ever waits for another.
 *
 * When the front-end goes, the TAP stays, and with a listening socket the next front-end is waited
 * for. Frames for the VM then wait in the TAP's queue, where they wake nobody and the kernel throws
 * away what is too much; before the next guest gets its first frame they are thrown away too, as
 * they were meant for the one before. Queues that the guest doesn't use are detached from the TAP,
 * or the kernel would go on giving them their share of the flows.
 *
 * The guest is hostile: what it breaks stops that queue until its driver starts anew. The front-end
 * is as trusted as the user who runs both; its mistakes end the connection. Not offered: packed
 * rings, an IOMMU, dirty logging (no live migration), polling instead of kicks.
 */
#pragma once

#include "helper/forward.h"

#include <poll.h>

#define VHOST_USER_QUEUE_PAIRS_MAX 8
#define VHOST_USER_FDS             4
#define VHOST_USER_REASON_SIZE     160

struct vhost_user;

/* What came out of one look at the fds. Each but NOTHING has a text. */
enum vhost_user_news {
	VHOST_USER_NOTHING,
	VHOST_USER_CONNECTED,
	VHOST_USER_DISCONNECTED, /* the front-end went */
	VHOST_USER_REFUSED,      /* the front-end was sent away: it broke the protocol */
	VHOST_USER_RING_BROKEN,  /* by the guest: that queue stopped */
	VHOST_USER_ENDED,        /* it can't go on: see vhost_user_result() */
};

/*
 * A device on queue_pairs TAP queues (1 to VHOST_USER_QUEUE_PAIRS_MAX), each with IFF_NO_PI and
 * IFF_VNET_HDR, several with IFF_MULTI_QUEUE. socket is a listening unix stream socket, or one that
 * is connected to the front-end. Takes over socket and taps, on failure too. mtu is the network's,
 * in bytes behind the Ethernet header. SIGPIPE has to be ignored. -ENOTSUP on big-endian machines,
 * -EINVAL, -ENOMEM, or the errno with which socket or TAP refused.
 */
int vhost_user_open(int socket, const int *taps, size_t queue_pairs, size_t mtu,
	struct vhost_user **ret_device);

/* Ends threads and connection, and closes the TAP. NULL is allowed. */
void vhost_user_close(struct vhost_user *device);

/* What to poll(2) for; entries that do not count have fd -1. */
void vhost_user_fill(const struct vhost_user *device, struct pollfd fds[VHOST_USER_FDS]);

/*
 * Handles what poll(2) found: at most one message, or one other event. ret_reason has
 * VHOST_USER_REASON_SIZE bytes and is one line for the log, empty with NOTHING.
 */
enum vhost_user_news vhost_user_dispatch(
	struct vhost_user *device, const struct pollfd fds[VHOST_USER_FDS], char *ret_reason);

/* Why the device ended by itself: 0 while it works; -ECONNRESET when a connected socket's front-end
 * went, -EBADFD when the TAP was deleted, or another negative errno. */
int vhost_user_result(const struct vhost_user *device);

/* All queues' counters of one direction together. Any thread may ask. */
void vhost_user_count(const struct vhost_user *device, enum direction direction,
	struct direction_counters *ret_counters);

/* How many rings were stopped because the guest broke them. */
uint64_t vhost_user_stopped_queues(const struct vhost_user *device);
