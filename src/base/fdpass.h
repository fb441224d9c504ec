/*
 * fds over AF_UNIX sockets (SCM_RIGHTS, unix(7)): one checked place for sending and receiving them.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define FD_PASS_MAX 16

/* What one message brought along. Unused entries are -1. */
struct fd_list {
	int fds[FD_PASS_MAX];
	size_t count;
};

/* An empty list: all entries -1. */
void fd_list_init(struct fd_list *list);

/* Closes what is still in the list and leaves it empty. Accepts an initialised list only. */
void fd_list_done(struct fd_list *list);

/* Takes entry index out of the list: the caller owns it. -EBADF when there is none (or it was taken
 * before). */
int fd_list_take(struct fd_list *list, size_t index);

#define cleanup_fds __attribute__((__cleanup__(fd_list_done)))

/*
 * Sends size (> 0) bytes and, with the first of them, fds_count (<= FD_PASS_MAX) fds, which stay
 * the caller's. Never raises SIGPIPE. Returns the number of bytes taken, or negative errno (-EAGAIN
 * on a full non-blocking socket).
 */
ssize_t fd_send(int socket, const void *data, size_t size, const int *fds, size_t fds_count);

/*
 * Receives up to size bytes with one recvmsg() and the fds that came with them, born CLOEXEC.
 * Returns the bytes (0: end of stream), or negative errno. Truncated data or control data (more fds
 * than FD_PASS_MAX) is -EBADMSG, and every fd that arrived has been closed: a sender gets nothing
 * half-accepted.
 */
ssize_t fd_receive(int socket, void *buffer, size_t size, struct fd_list *ret_fds);
