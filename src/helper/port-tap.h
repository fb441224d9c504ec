/*
 * The host's end of the cable on Linux: a TAP queue, one system call a frame (kernel:
 * networking/tuntap).
 */
#pragma once

#include "base/cleanup.h"
#include "helper/offload.h"

/*
 * A port on one queue of a TAP that has IFF_NO_PI and IFF_VNET_HDR. Takes over tap_fd, on failure
 * too, and sets it up for this cable: non-blocking, 12 bytes of virtio-net header, and all the
 * offloads that mode can undo or pass on. -ENOMEM, or the errno with which the fd refused: it is no
 * TAP then. read_batch and write_batch return -EBADFD when the TAP was deleted.
 */
int port_tap_open(int tap_fd, enum offload_mode mode, struct port **ret_port);

/* Whether the TAP or macvtap link of a queue is there. */
bool port_tap_is_there(int tap_fd);

/* Closes its fd, which ends the interface. NULL is allowed. */
void port_tap_close(struct port *port);
