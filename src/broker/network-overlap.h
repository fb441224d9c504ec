/*
 * A network's subnet against what the host uses by now.
 */
#pragma once

#include "broker/network.h"

/*
 * What of the host overlaps the subnet of a network that is not ABSENT, in words for people, into
 * text; the bridges of networks do not count. Returns 1 when there is something, 0 when not, or
 * negative errno.
 */
int network_find_overlap(const struct network *network, char *text, size_t text_size);

/* Warns of each network that overlaps, once in its life. */
void registry_check_overlaps(struct registry *registry);
