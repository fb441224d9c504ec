/*
 * When the NAT rules are made anew. They are one table for all networks, so many networks that come
 * or go at the same moment share one change.
 */
#pragma once

#include "broker/network.h"

/* Makes the timer; negative errno. */
int network_nat_init(struct registry *registry);
void network_nat_done(struct registry *registry);

/* A bridge came or went: the rules are due when all that is asked for now has been done. */
void network_nat_want(struct registry *registry);

/*
 * Makes them now if they are due. On failure, negative errno with detail (PLATFORM_DETAIL_SIZE
 * bytes), they stay due.
 */
int network_nat_settle(struct registry *registry, char *detail);
