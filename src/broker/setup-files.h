/*
 * Directories of the broker and the instance file. Root works here inside directories of another
 * user, so no path is followed twice and no link at all.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* Writes the message and returns result. */
int setup_fail(char *error, int result, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * All of these: 0 or negative errno with error (SETUP_ERROR_SIZE bytes) filled in. Only the last
 * part of a path is made. ret_fd is the caller's.
 */

/* One that exists must be root's, or this ordinary user's, and nobody else's to write in. -ESTALE:
 * it was removed meanwhile; try again. */
int setup_open_runtime_directory(const char *path, int *ret_fd, char *error);

/* Makes the opened one root's, mode 0755, or this ordinary user's, mode 0700, with networks,
 * interfaces and forwards in it, the front's alone. path is for the message. */
int setup_fill_runtime_directory(int fd, uid_t uid, gid_t gid, const char *path, char *error);

/* The front's alone. One that exists must be the front's, or root's and empty but for what a
 * broker leaves there. */
int setup_state_directory(const char *path, uid_t uid, gid_t gid, int *ret_fd, char *error);

/* The number in the file "instance" of the state directory; drawn and written durably if there is
 * none. */
int setup_read_instance(int state, uint32_t *ret_instance, char *error);
