/*
 * The queue in front of pasta, in a user's own namespace. What VMs send to the world arrives there
 * from the bridge in bursts that nothing slows down, and what finds no room is lost: with MTU 1500
 * and the usual 1000 places a TCP stream loses thousands of segments a second and carries
 * 0.06-0.3 Gbit/s, with 20,000 none and 2.3 Gbit/s, as much as a program beside pasta itself.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"

/*
 * Makes the queues of the interfaces that default routes leave by as long as the smallest MTU of a
 * shared network asks for. Only for links that are nobody else's. Says into outcome what failed; an
 * interface that has gone meanwhile is no failure.
 */
int uplink_queues_apply(struct links *links, struct verb_outcome *outcome);
