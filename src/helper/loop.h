/*
 * Waiting, in the thread that forwards nothing: for one thing while the helper starts, and then for
 * the end, which is a signal, the VM's death or a broken cable. What happens on the way is logged
 * here, once.
 */
#pragma once

#include "helper/cable.h"
#include "helper/peer-watch.h"

#include <stdbool.h>
#include <stdint.h>

/* What a step of the startup or the waiting came to. A step that failed has logged why. */
enum outcome {
	OUTCOME_GO_ON,
	OUTCOME_STOP,   /* asked for by a signal, or the VM has gone: exit status 0 */
	OUTCOME_FAILED, /* exit status 1 */
};

/* All of it is the caller's. */
struct loop {
	int signals;                /* a signalfd(2) of those that mean a stop */
	const char *interface_name; /* for people */
	int interface_fd;           /* asked whether it is there still; -1: reads tell */
	const struct direction_counters *strangers; /* added to what came from the VM */
	struct cable *cable;
	struct peer_watch *watch;
	int counters_listener; /* who connects is told what was counted; -1: nobody can */
	bool has_told_trouble; /* the loop's own */
};

/* Waits until fd has one of the events of poll(2), and returns OUTCOME_GO_ON then; a stop comes
 * first. */
enum outcome loop_wait_for(int signals, int fd, short events);

/*
 * Watches a cable that was started until it ends, and logs its counters every
 * stats_interval_seconds unless that is 0. Returns OUTCOME_STOP or OUTCOME_FAILED.
 */
enum outcome loop_run(struct loop *loop, uint32_t stats_interval_seconds);
