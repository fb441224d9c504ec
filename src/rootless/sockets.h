/*
 * Sockets below a runtime directory, by which the parts of an ordinary user's broker find each
 * other. The caller has the directory's lock where it makes one.
 */
#pragma once

#include <sys/un.h>

/* DIRECTORY/NAME as an address. -ENAMETOOLONG (unix(7): 107 bytes). */
int sockets_make_address(const char *directory, const char *name, struct sockaddr_un *ret_address);

/*
 * Listens at DIRECTORY/NAME by SOCK_SEQPACKET, for this user only, in the place of what a dead
 * broker left. The supervisor keeps it, so that who connects while its server is started again
 * waits in the queue. Negative errno of bind(2) and listen(2). *ret_fd goes to sockets_close().
 */
int sockets_listen(const char *directory, const char *name, int *ret_fd);

/* Connects to such a socket. Negative errno of connect(2). *ret_fd is the caller's. */
int sockets_connect(const char *directory, const char *name, int *ret_fd);

/* Closes what sockets_listen() made and removes its file; does nothing for -1. */
void sockets_close(const char *directory, const char *name, int fd);
