/* What the device's parts share: vhost-user.c has its life, vhost-user-requests.c the messages. */
#pragma once

#include "helper/vhost-user-protocol.h"
#include "helper/vhost-user-queue.h"
#include "helper/vhost-user.h"

#define VHOST_USER_RINGS_MAX (2 * VHOST_USER_QUEUE_PAIRS_MAX)

struct vhost_user {
	int listener;   /* -1 when there is none */
	int connection; /* -1 while no front-end is there */
	int ended_event;
	int result;
	int taps[VHOST_USER_QUEUE_PAIRS_MAX];
	bool is_attached[VHOST_USER_QUEUE_PAIRS_MAX]; /* queues of the TAP */
	size_t queue_pairs;
	size_t mtu;
	uint64_t offered_features;
	/* Pairs of queues, in the order of the protocol: to the VM, to the host. */
	struct vhost_user_queue queues[VHOST_USER_RINGS_MAX];
	/* What the front-end said. */
	uint64_t protocol_features;
	struct vhost_user_memory memory;
	struct vhost_user_message message;
};

/*
 * Carries a complete message out, and answers it where an answer is due. Negative errno when the
 * connection has to end; ret_reason, as in vhost_user_dispatch(), then says why.
 */
int vhost_user_handle(
	struct vhost_user *device, struct vhost_user_message *message, char *ret_reason);

/* What can be offered with this TAP, whose USO the kernel may not know. */
uint64_t vhost_user_offer_features(size_t queue_pairs, bool has_uso);

/* Tells TAP and queues what features mean. All queues must be paused. Negative errno of the TAP. */
int vhost_user_apply_features(struct vhost_user *device, uint64_t features);

/* TUNSETOFFLOAD's bits for what a guest with these features takes. */
unsigned int vhost_user_tap_offloads(uint64_t features);

/*
 * Starts what can run and does not, with the TAP's queues attached as needed. Negative errno of the
 * TAP or of pthread_create(3).
 */
int vhost_user_resume_all(struct vhost_user *device);

/* Ends all threads, and waits for them: for one frame's system call at most. */
void vhost_user_pause_all(struct vhost_user *device);
