/*
 * What the helper gives up, in order: root's identity first, then all capabilities, at last every
 * system call it will not need.
 */
#pragma once

#define PRIVILEGES_REASON_SIZE 256

/*
 * For a helper that was started as root. By sudo: becomes the user who called sudo, with that
 * user's groups. With the set-user-ID bit: becomes the real user, whose environment then counts for
 * nothing. Otherwise keeps uid 0 without any capability. Does nothing for an ordinary user. On
 * failure negative errno and one line in reason (PRIVILEGES_REASON_SIZE bytes); the caller must not
 * go on.
 */
int privileges_give_up_root(char *reason);

/* Leaves no capability and only the system calls that forwarding and ending take. As above. */
int privileges_enter_sandbox(char *reason);
