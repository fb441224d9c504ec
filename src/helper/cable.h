/*
 * A cable is what runs between one VM and its interface: two ports with forwarding between them, or
 * a vhost-user device, which needs no ports because frames go straight from the guest's memory to
 * the TAP and back. Chosen once, at the start.
 */
#pragma once

#include "helper/forward.h"

#include <stddef.h>
#include <stdint.h>

enum cable_kind {
	CABLE_DGRAM,      /* frames are messages */
	CABLE_STREAM,     /* each frame follows its length */
	CABLE_VHOST_USER, /* the guest's memory is shared */
	CABLE_KIND_COUNT,
};

struct cable {
	enum cable_kind kind;
	struct port *host_port;
	struct port *vm_port;
	struct forward forward;
};

/* Nothing open: what cable_close() accepts. */
void cable_init(struct cable *cable);

/*
 * The kind of cable that a VM's inherited socket makes, or -ENOTSOCK (or another errno of
 * getsockopt(2)), -EAFNOSUPPORT when it is not AF_UNIX, -EPROTOTYPE when it is of another type,
 * -ENOTCONN when it has no peer.
 */
int cable_kind_of_socket(int socket);

/*
 * Opens the cable between a connected socket of the VM and the one queue of a TAP, for frames of
 * mtu bytes behind their Ethernet header, and more where mode says so. Takes over both fds, on
 * failure too. Negative errno.
 */
int cable_open_socket(struct cable *cable, enum cable_kind kind, int vm_socket, int tap,
	enum offload_mode mode, size_t mtu);

/* Starts the threads. Negative errno of pthread_create(3). */
int cable_start(struct cable *cable);

/* Ends the threads and closes everything. */
void cable_close(struct cable *cable);

/* Readable when a direction ended by itself. */
int cable_ended_event(const struct cable *cable);

/* As forward_result(). */
int cable_result(const struct cable *cable, enum direction direction);

/* What was counted until now, over all queues. */
void cable_count(const struct cable *cable, enum direction direction,
	struct direction_counters *ret_counters);
