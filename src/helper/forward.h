/*
 * The data path: frames from one port to the other, one thread a direction. Neither direction ever
 * waits for the other, and a full queue never holds up a stop: the wait for room is bounded, what
 * does not fit then is dropped and counted.
 */
#pragma once

#include "helper/offload.h"

#include <pthread.h>
#include <stdbool.h>

enum direction {
	DIRECTION_HOST_TO_VM,
	DIRECTION_VM_TO_HOST,
	DIRECTION_COUNT,
};

/* "host->vm", "vm->host": the log's tags. */
const char *direction_name(enum direction direction);

/* One direction's own: nobody but its thread touches it, the atomics aside. */
struct forward_lane {
	struct port *from;
	struct port *to;
	struct batch batch;
	struct gather gather;
	struct offload offload;
	struct direction_counters counters;
	_Atomic int result;
	const struct forward *forward;
	pthread_t thread;
	bool is_running;
};

struct forward {
	struct forward_lane lanes[DIRECTION_COUNT];
	_Atomic bool is_stopping;
	int stop_event;  /* readable when both threads shall end */
	int ended_event; /* readable when a direction ended by itself */
};

/*
 * Allocates all that forwarding will need between the ports, which stay the caller's and must
 * outlive it. mode is what the VM's side can do without the helper, mtu the network's, in bytes. On
 * failure negative errno, and forward_done() is still to be called.
 */
int forward_init(struct forward *forward, struct port *host, struct port *vm,
	enum offload_mode mode, size_t mtu);

/* Ends the threads if they run, and frees what forward_init() took. Accepts a zeroed one whose
 * events are -1. */
void forward_done(struct forward *forward);

/* Starts both threads, with all signals blocked in them as they are in the caller. Negative errno
 * of pthread_create(3). */
int forward_start(struct forward *forward);

/* Ends both threads and waits for them: less than a millisecond beyond what is at hand, a batch for
 * the VM or a frame for the TAP, however full the queues are. */
void forward_stop(struct forward *forward);

/*
 * Why a direction ended by itself: 0 while it runs and after a stop, -ECONNRESET when the VM has
 * gone, another negative errno when a port broke. Any thread may ask.
 */
int forward_result(const struct forward *forward, enum direction direction);

/* An empty batch for what port reads. -ENOMEM. */
int batch_init(struct batch *batch, const struct port *port);

/* Frees its memory. Accepts a zeroed batch. */
void batch_done(struct batch *batch);
