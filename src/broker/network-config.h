/*
 * The configuration of networks while they are there: another one takes its place, and some
 * networks are kept without users.
 */
#pragma once

#include "broker/network.h"

/*
 * Makes registry->config another one: what it says of access, quotas, reservations and pinning
 * holds at once; of a network that is there all else holds when it is next made, which is logged.
 * New networks appear; those that are not configured any more are forgotten when they have gone.
 * Nothing points into the old configuration afterwards; it is returned and the caller's.
 */
struct config *registry_set_config(struct registry *registry, struct config *config);

/* Whether it is kept without users. */
bool network_is_pinned(const struct network *network);

/* Makes the pinned networks that are not there. What cannot be made is logged, and tried again. */
void registry_start_pinned(struct registry *registry);

/* The same soon: for one that has just gone. */
void registry_start_pinned_later(struct registry *registry);

/* Logs what a network that is there does not do as it is configured now. */
void network_report_differences(const struct network *network);
