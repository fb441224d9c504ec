/*
 * How often a peer or a child can make the broker log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* All zero is a fresh one. */
struct rate_limit {
	uint64_t window_start_ms;
	uint32_t used;
	uint32_t suppressed;
};

/* At most so many in a window of so long. */
#define RATE_LIMIT_BURST     50
#define RATE_LIMIT_WINDOW_MS 10000

/*
 * True when one more may pass at now_ms (any clock that only goes forward). *ret_suppressed is how
 * many were held back before it, to be mentioned; 0 mostly.
 */
bool rate_limit_allow(struct rate_limit *limit, uint64_t now_ms, uint32_t *ret_suppressed);

/* The monotonic clock, in milliseconds. */
uint64_t rate_limit_now_ms(void);
