/* A page of ListStatistics: which interfaces are in it, and what the kernel counted of them. */
#pragma once

#include "broker/network.h"

#include <jansson.h>

/* Of at most 700 bytes each, so that they fit into one message with room for members to come. */
#define STATISTICS_PAGE_LENGTH 64

/* One interface, which may go before the page is sent. */
struct statistics_entry {
	uint32_t number;
	struct broker_statistics said;
};

struct statistics_page {
	struct statistics_entry entries[STATISTICS_PAGE_LENGTH];
	size_t count;
	bool more;
	int64_t time_ms; /* when it was counted: of CLOCK_BOOTTIME */
};

/*
 * Of the interfaces that uid may know of (its own; root: all) the first ones whose names come
 * behind after ("": from the first on). Negative errno when the kernel could not be asked.
 */
int statistics_page_fill(const struct registry *registry, uid_t uid, const char *after,
	struct statistics_page *ret_page);

/* ListStatistics' answer; NULL when memory is out. */
json_t *statistics_page_encode(const struct statistics_page *page);
