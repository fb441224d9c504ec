/*
 * Two children, the helper and the command, and the promise that nothing of them is left behind:
 * not when one of them dies, not when this process is told to stop, not when it is killed
 * (guard.h).
 *
 * Everything they start counts too as long as it stays in our process group: as its subreaper
 * (prctl(2), PR_SET_CHILD_SUBREAPER) this process inherits what they leave behind and waits for it.
 */
#pragma once

#include "base/spawn.h"
#include "run/guard.h"
#include "run/process-group.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SUPERVISOR_KILL_MS                                                                         \
	2000 /* from KILL to giving up: it may be uninterruptible, or another user's */

struct child {
	pid_t pid; /* meaningful while running */
	bool running;
	bool end_is_news; /* its end was not told by supervisor_wait() yet */
	int status;       /* of waitpid(2), once it ended */
};

struct supervisor {
	struct process_group group;
	struct guard guard;
	int signals;         /* signalfd */
	int stop_signal;     /* the first signal that told us to stop; 0: none yet */
	bool ignores_hangup; /* started under nohup: we and our children stay */
	struct child helper;
	struct child command;
};

enum supervisor_event {
	SUPERVISOR_STOPPED,       /* by a signal; told again and again */
	SUPERVISOR_COMMAND_ENDED, /* told once */
	SUPERVISOR_HELPER_ENDED,  /* told once */
	SUPERVISOR_READABLE,
	SUPERVISOR_TIMED_OUT,
};

/*
 * Takes over signals, enters a process group and starts the guard. Must be called in a
 * single-threaded process. Negative errno; on success supervisor_finish() must follow.
 */
int supervisor_start(struct supervisor *ret_supervisor);

/*
 * Starts a program as child, one of the supervisor's two. options->prepare is the supervisor's own
 * and must be NULL. Errors as spawn().
 */
int supervisor_run(
	struct supervisor *supervisor, struct child *child, const struct spawn_options *options);

/* Milliseconds of CLOCK_MONOTONIC, which deadlines are made of. */
int64_t supervisor_now_ms(void);

/*
 * Waits for whatever comes first, fd (-1: none) readable or hung up and deadline_ms (-1: never)
 * included. Of several the first in the order of the enum is told: when Ctrl-C ends everything at
 * once, it was the signal that did it, and the end of the command says more than that of its
 * helper.
 */
enum supervisor_event supervisor_wait(struct supervisor *supervisor, int fd, int64_t deadline_ms);

/*
 * Writes text to fd, waiting for room where there is none. -EINTR when supervisor_wait() has
 * something to tell meanwhile; negative errno of write(2).
 */
int supervisor_write(struct supervisor *supervisor, int fd, const char *text);

/*
 * Ends what is left of the children: TERM, PROCESS_GROUP_TERM_MS later KILL. Returns the number of
 * processes that could not be ended, 0 nearly always.
 */
int supervisor_finish(struct supervisor *supervisor);

/* What a shell would say of a status of waitpid(2): the exit status, or 128 and the number of the
 * signal. */
int supervisor_exit_status(int status);
