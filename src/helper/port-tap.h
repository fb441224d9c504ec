/*
 * The host's end of the cable on Linux: a TAP queue, one system call a frame (kernel:
 * networking/tuntap).
 */
#pragma once

#include "base/cleanup.h"
#include "helper/port.h"

/*
 * A port on one queue of a TAP that has IFF_NO_PI and IFF_VNET_HDR. Takes over tap_fd, on failure
 * too, and sets it up for this cable: non-blocking, 12 bytes of virtio-net header, no offloads, so
 * that only whole frames with full checksums come out. frame_max is the longest frame in bytes.
 * -ENOMEM, or the errno with which the fd refused: it is no TAP then. read_batch and write_batch
 * return -EBADFD when the TAP was deleted.
 */
int port_tap_open(int tap_fd, size_t frame_max, struct port **ret_port);

/* Closes its fd, which ends the interface. NULL is allowed. */
void port_tap_close(struct port *port);
