#include "broker/rate-limit.h"

#include <time.h>

bool rate_limit_allow(struct rate_limit *limit, uint64_t now_ms, uint32_t *ret_suppressed)
{
	*ret_suppressed = 0;
	if (now_ms - limit->window_start_ms >= RATE_LIMIT_WINDOW_MS) {
		*ret_suppressed = limit->suppressed;
		*limit = (struct rate_limit){.window_start_ms = now_ms};
	}
	if (limit->used >= RATE_LIMIT_BURST) {
		limit->suppressed++;
		return false;
	}
	limit->used++;
	return true;
}

uint64_t rate_limit_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
