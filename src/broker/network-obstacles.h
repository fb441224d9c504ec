/*
 * What of the host is in a network's way, in words for people.
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

/* Why a network's dnsmasq did not start, from its own last words: into *failure. */
void network_explain_failure(
	const struct network *network, const char *reason, struct failure *failure);

/* Warns that firewalld does not let a bridge through, with what mends it. */
void registry_tell_refusal(const char *bridge, const char *reason);
