/*
 * The VM's end of the cable: an AF_UNIX socket that keeps frame boundaries, one Ethernet frame
 * without FCS a message, raw (unix(7); QEMU -netdev dgram, libkrun unixgram, vfkit) or behind a
 * virtio-net header.
 *
 * Such a socket does not tell a reader that its peer has died, so the port can also say which
 * process sends: the kernel vouches for it with SCM_CREDENTIALS.
 */
#pragma once

#include "base/cleanup.h"
#include "helper/port.h"

/*
 * A port on a connected socket that keeps boundaries. Takes over socket, on failure
 * too; its flags and buffers are left alone, because another process may share them. frame_max is
 * the longest frame in bytes; with has_header a virtio-net header of 12 bytes precedes each, both
 * ways. Messages that others than the peer queued before it was connected are
 * dropped and counted. Negative errno.
 */
int port_dgram_open(int socket, size_t frame_max, bool has_header, struct port **ret_port);

/* Closes its socket. NULL is allowed. */
void port_dgram_close(struct port *port);

/*
 * Starts to look for the process that sends frames; only one search at a time. The answer comes
 * with the next frame, from the thread that reads: port_dgram_sender_event() becomes readable. To
 * be called by any one thread, before the reading starts or while it goes on. Negative errno of
 * setsockopt(2).
 */
int port_dgram_find_sender(struct port *port);

/* An eventfd of the port, readable when a search ended; the searcher reads it empty. */
int port_dgram_sender_event(const struct port *port);

/* Who sent the frame that ended the last search: a pid, or 0 when it has none in our namespace. */
pid_t port_dgram_sender(const struct port *port);
