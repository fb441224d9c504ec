/*
 * The VM's end of the cable as a byte stream: each frame behind its length, four bytes in network
 * order (QEMU -netdev stream and socket, libkrun unixstream, passt's clients). Many frames pass
 * with one system call, which makes it the cheapest of the sockets.
 */
#pragma once

#include "base/cleanup.h"
#include "helper/port.h"

/*
 * A port on a connected AF_UNIX stream socket. Takes over socket, on failure too. frame_max is the
 * longest frame in bytes; with has_header a virtio-net header of 12 bytes precedes each frame, both
 * ways, and counts in the length. -ENOMEM.
 *
 * read_batch returns -ECONNRESET when the other side has closed the socket, -EBADMSG when a length
 * is none that a frame can have: where the next frame begins is unknown then, so that is the end.
 */
int port_stream_open(int socket, size_t frame_max, bool has_header, struct port **ret_port);

/* Closes its socket. NULL is allowed. */
void port_stream_close(struct port *port);
