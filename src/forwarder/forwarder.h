/*
 * The forwarder: how ports of the host lead to VMs where a network lives in a user's own namespaces
 * (decision 022). It runs inside those, without any capability; the front, outside, opens the
 * sockets that listen and passes them in, and connections to VMs are made from here.
 */
#pragma once

/*
 * Serves fronts (forwarder-protocol.h), one after the other, at listen_fd: a listening AF_UNIX
 * SOCK_SEQPACKET socket, the caller's. Forwards and what goes through them outlive a front. Gives
 * up its capabilities first, and most system calls; raises its limit of open files and ignores
 * SIGPIPE. Returns negative errno only: when it could not begin, or cannot wait any more.
 */
int forwarder_run(int listen_fd);
