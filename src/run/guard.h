/*
 * The guard: a child that does nothing but outlive a killed vmnet-client, to end what that one
 * can't end any more. It is in the client's process group, which keeps the group's number from
 * meaning anybody else.
 */
#pragma once

#include "run/process-group.h"
#include "run/socket-directory.h"

#include <sys/types.h>

struct guard {
	pid_t pid;    /* 0: there is none */
	int lifeline; /* its other end is the guard's: the kernel closes this one whatever kills us
		       */
	/* Of the helper's socket; empty: there is none. */
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
};

/* No guard: what guard_stop() accepts. */
void guard_init(struct guard *guard);

/*
 * Starts it. From here until guard_stop() the death of this process, however it comes, ends the
 * process group: TERM, a grace, KILL, with the terminal given back as group says. Call it while
 * this process has a single thread. Negative errno of pipe2(2) or fork(2).
 */
int guard_start(struct guard *guard, const struct process_group *group);

/*
 * From here on the directory is removed when the process group is ended, and by guard_stop(). To be
 * called once, before the directory is made: so there is no moment in which a kill could leave it.
 * Negative errno of write(2), or -ENAMETOOLONG.
 */
int guard_watch_directory(struct guard *guard, const char *directory);

/* Removes the directory that was watched, then ends the guard and nothing else: this process has
 * done the other cleaning itself. */
void guard_stop(struct guard *guard);

/* Must be told of each child that was waited for, since its number may mean another process from
 * then on. */
void guard_note_reaped(struct guard *guard, pid_t pid);
