/*
 * Which IPv4 subnet a network gets. Pure: what is taken comes in as a list.
 */
#pragma once

#include "base/text.h"

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

#define SUBNET_OWNER_SIZE 128

/* Something that occupies addresses: an address or a route of the host, or another network. */
struct subnet_use {
	struct ipv4_subnet subnet;     /* prefix length 0..32 */
	char link[IFNAMSIZ];           /* of the host; empty: not known, or another network */
	char owner[SUBNET_OWNER_SIZE]; /* for people: "route 192.168.64.0/24 of eth0" */
};

/* A growing list of uses; all zero is an empty one. */
struct subnet_uses {
	struct subnet_use *entries;
	size_t count;
};

/* Adds a use with its owner's name as printf() would write it. -ENOMEM, then nothing was added. */
int subnet_uses_add(struct subnet_uses *uses, struct ipv4_subnet subnet, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Frees the entries; the list is empty and usable afterwards. */
void subnet_uses_done(struct subnet_uses *uses);

/*
 * The first use that overlaps subnet, or NULL. Uses with a prefix shorter than 8 are passed over:
 * they are default routes, whole (0.0.0.0/0) or in halves (0.0.0.0/1, the way VPNs set them).
 */
const struct subnet_use *subnet_find_use(const struct subnet_uses *uses, struct ipv4_subnet subnet);

/*
 * Candidate number index of the fixed order: 192.168.64.0/24, 192.168.128.0/24, the rest of
 * 192.168.65-254, 10.64-254.64.0/24, 172.16-31.64.0/24. Returns false behind the last one.
 */
bool subnet_get_candidate(size_t index, struct ipv4_subnet *ret_subnet);

/* The first candidate that overlaps no use. -EADDRNOTAVAIL when all are taken. */
int subnet_choose(const struct subnet_uses *uses, struct ipv4_subnet *ret_subnet);
