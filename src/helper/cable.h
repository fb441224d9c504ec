/*
 * A cable is what runs between one VM and its interface: two ports with forwarding between them, or
 * a vhost-user device, which needs no ports because frames go straight from the guest's memory to
 * the TAP and back. Chosen once, at the start.
 */
#pragma once

#include "helper/forward.h"
#include "helper/vhost-user.h"

#include <stddef.h>
#include <stdint.h>

enum cable_kind {
	CABLE_DGRAM,      /* frames are messages */
	CABLE_STREAM,     /* each frame follows its length */
	CABLE_VHOST_USER, /* the guest's memory is shared */
	CABLE_KIND_COUNT,
};

#define CABLE_FDS         VHOST_USER_FDS
#define CABLE_REASON_SIZE VHOST_USER_REASON_SIZE

struct cable {
	enum cable_kind kind;
	struct vhost_user *vhost_user; /* of CABLE_VHOST_USER; the rest is the sockets' */
	struct port *host_port;
	struct port *vm_port;
	struct forward forward;
};

enum cable_news {
	CABLE_NOTHING,
	CABLE_CHANGED, /* something a person may want to know */
	CABLE_TROUBLE, /* the same, and the VM's doing */
	CABLE_ENDED,   /* see cable_result() */
};

/* Nothing open: what cable_close() accepts. */
void cable_init(struct cable *cable);

/*
 * The kind of cable that a VM's inherited socket makes, or -ENOTSOCK (or another errno of
 * getsockopt(2)), -EAFNOSUPPORT when it is not AF_UNIX, -ENOTCONN when it has no peer: a listening
 * socket too.
 */
int cable_kind_of_socket(int socket);

/*
 * Opens the cable between a connected socket of the VM and the one queue of a TAP, for frames of
 * mtu bytes behind their Ethernet header, and more where mode says so. Takes over both fds, on
 * failure too. Negative errno.
 */
int cable_open_socket(struct cable *cable, enum cable_kind kind, int vm_socket, int tap,
	enum offload_mode mode, size_t mtu);

/*
 * Opens a vhost-user device on a listening socket and the queues of a TAP, for the front-ends that
 * come one after another. Takes over all fds, on failure too. Errors as vhost_user_open().
 */
int cable_open_vhost_user(
	struct cable *cable, int listener, const int *taps, size_t queue_pairs, size_t mtu);

/* Starts the threads; a vhost-user device starts its own when a guest does. Negative errno of
 * pthread_create(3). */
int cable_start(struct cable *cable);

/* Ends the threads and closes everything. */
void cable_close(struct cable *cable);

/* What to poll(2) for; entries that do not count have fd -1. */
void cable_fill(const struct cable *cable, struct pollfd fds[CABLE_FDS]);

/* Handles what poll(2) found. ret_reason (CABLE_REASON_SIZE bytes) is one line for the log, empty
 * when there is nothing to say. */
enum cable_news cable_dispatch(
	struct cable *cable, const struct pollfd fds[CABLE_FDS], char *ret_reason);

/*
 * Why a direction ended by itself: 0 while it runs and after a stop, -ECONNRESET when the VM has
 * gone, -EBADFD when its interface was deleted, -EBADMSG when a stream's length was none, or
 * another negative errno. A vhost-user device ends as a whole, which is told for host->vm.
 */
int cable_result(const struct cable *cable, enum direction direction);

/* What was counted until now, over all queues. */
void cable_count(const struct cable *cable, enum direction direction,
	struct direction_counters *ret_counters);
