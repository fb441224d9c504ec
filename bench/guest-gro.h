/*
 * What a guest's kernel does with frames that its driver finds in the ring together: TCP segments
 * that follow one another go up the stack as one. A TAP that is written frame by frame has nothing
 * of that, so without this a simulated VM would answer every second segment with an ACK of its own
 * and measure mostly itself.
 */
#pragma once

#include "endpoint.h"

/*
 * Writes the burst to a TAP, segments of one IPv4 TCP flow joined as Linux's GRO joins them. The
 * frames are changed. The checksums are believed, as a guest believes those of a network card.
 * Errors as of endpoint_write().
 */
int guest_gro_write(const struct endpoint *tap, struct burst *burst);
