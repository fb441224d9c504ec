/*
 * The kernel's own packet mover for virtio-net, /dev/vhost-net, for processes that may not open it.
 */
#pragma once

#include "priv/outcome.h"

#include <stdint.h>

/*
 * Opens the device count times, non-blocking as VM programs want it, and puts the fds into outcome:
 * one for each queue of a TAP, since one has one backend (linux/vhost.h). Each is free of any
 * process until its holder says VHOST_SET_OWNER. Negative errno when the host has none that works
 * (-ENOENT: no such file; -ENODEV: no character device, or none with a driver); then outcome says
 * so and holds none.
 */
int vhost_open(uint32_t count, struct verb_outcome *outcome);
