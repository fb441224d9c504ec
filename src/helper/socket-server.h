/*
 * --socket, --stream and --vhost-user PATH: the helper's own socket, at a path that one helper owns
 * for its life, and the meeting with its one client.
 *
 * A datagram socket accepts nobody: the client binds a path of its own, connects, and sends. The
 * first message shows its address, and the helper connects back; from then on the kernel refuses
 * everybody else (EPERM), and the queue is as long as the sender's buffer allows instead of
 * net.unix.max_dgram_qlen. The path stays until the end although nobody else can use it: tools look
 * for it. One client a helper's life; another VM needs another helper. A stream socket accepts its
 * one client.
 */
#pragma once

#include "helper/port.h"

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

/* Longest path that fits into sun_path with its NUL. */
#define SOCKET_SERVER_PATH_MAX 107

#define SOCKET_SERVER_REASON_SIZE 256

/* A file of ours: removed only while it is still the one we made. */
struct owned_file {
	char path[PATH_MAX];
	dev_t device;
	ino_t inode;
};

struct socket_server {
	int socket; /* bound, and listening if it is a stream; -1: taken by the caller */
	int lock;
	struct owned_file socket_file;
	struct owned_file lock_file;
};

/* Nothing open, nothing owned: what socket_server_close() accepts. */
void socket_server_init(struct socket_server *server);

/*
 * Locks PATH.lock (mode 0600) and binds PATH (mode 0600) instead of what a dead helper may have
 * left there; type is SOCK_DGRAM, or SOCK_STREAM to listen. On failure negative errno with one line
 * about it in reason (SOCKET_SERVER_REASON_SIZE bytes): -EWOULDBLOCK when another helper holds the
 * lock, -EADDRINUSE when something that is no dead helper's socket is at PATH.
 */
int socket_server_open(struct socket_server *server, const char *path, int type, char *reason);

/* Removes the socket and the lock file and closes both. */
void socket_server_close(struct socket_server *server);

/*
 * Looks, without waiting, at what the server's socket has received. Returns 1 when it is connected
 * to its client now; the client's first message is still queued unless it was the four bytes
 * "VFKT", with which some clients only make themselves known. Returns 0 when there is nothing or
 * nobody to connect to; a reason then says why a message was passed over, else it is empty. Such a
 * message is counted in counters->drops. Negative errno when the socket is of no more use.
 */
int socket_server_meet_client(
	struct socket_server *server, struct direction_counters *counters, char *reason);

/*
 * Accepts the one client of a listening server, without waiting, and listens no more. Returns 1
 * with the client's socket, 0 when nobody is there, or negative errno.
 */
int socket_server_accept(struct socket_server *server, int *ret_socket);
