/*
 * Starting programs: explicit fds, nothing inherited by accident, and the child's failure comes
 * back as an error of the call instead of a mysterious exit status.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* source (the caller's) becomes target in the child; every other fd above 2 is closed there. */
struct spawn_fd {
	int source;
	int target;
};

struct spawn_options {
	const char *path;              /* a path, or a bare name, which is looked up in PATH */
	char *const *arguments;        /* NULL-terminated, arguments[0] included */
	char *const *environment;      /* NULL-terminated, or NULL for the caller's */
	const struct spawn_fd *fds;    /* targets may be 0..2 too */
	size_t fds_count;              /* at most SPAWN_FDS_MAX */
	int (*prepare)(void *context); /* in the child, last thing before exec: drop privileges;
					  negative errno on failure */
	void *context;
};

#define SPAWN_FDS_MAX 24

/*
 * Forks and executes. Signal mask and dispositions are the default ones in the child. On success
 * *ret_pid is the child and *ret_pidfd (may be NULL) a pidfd the caller owns. Errors: negative
 * errno of fork, of prepare, or of exec in the child (-ENOENT, -EACCES, ...); then there is no
 * child left to wait for.
 */
int spawn(const struct spawn_options *options, pid_t *ret_pid, int *ret_pidfd);

/*
 * The directory of the running program itself, without a slash at its end: where programs that
 * belong to it are. directory has size bytes (PATH_MAX is enough). -ENOENT when there is none;
 * negative errno of readlink(2).
 */
int spawn_find_own_directory(char *directory, size_t size);

/*
 * True when another file is at the place the running program was started from: a newer build was
 * installed over it. False when nothing is there.
 */
bool spawn_own_program_was_replaced(void);
