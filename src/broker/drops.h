/*
 * Frames that VMs' interfaces drop, told while somebody listens: the kernel has counters, and tells
 * nobody when they change.
 */
#pragma once

#include "broker/network.h"

/* How often it is looked. */
#define DROPS_PERIOD_MS 5000

/* Somebody wants to hear of it from now on; from the second look on there is something to tell. */
void drops_listen(struct registry *registry);

/* And does no more. */
void drops_unlisten(struct registry *registry);
