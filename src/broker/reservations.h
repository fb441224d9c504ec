/*
 * Which address a MAC has on one network. Pure. Entries are kept in the order of their last use,
 * the longest unused one first, so that this one is given up when the addresses run out.
 */
#pragma once

#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>

/* At most so many MACs are remembered for a network, however large its subnet. */
#define RESERVATIONS_MAX 4096
/* With those that the configuration adds to these. */
#define RESERVATIONS_LIST_MAX (RESERVATIONS_MAX + 1024)

struct reservation {
	struct mac mac;
	uint32_t offset; /* from the subnet's base address: it survives a move to another subnet */
};

/* All zero is an empty list. */
struct reservations {
	struct reservation *entries;
	size_t count;
};

/* Whether a MAC's address must not be given to another one: its interface lives, or it is
 * configured. */
typedef bool reservation_is_kept(void *context, struct mac mac);

/*
 * The offset for a MAC: its old one, else a free one in [first, last], else that of the longest
 * unused MAC that is not kept. Makes the MAC the latest used one. Returns 1 when the list changed
 * and has to be saved, 0 when not, -ENOSPC when every address is kept,
 * -ENOMEM.
 */
int reservations_take(struct reservations *reservations, struct mac mac, uint32_t first,
	uint32_t last, reservation_is_kept *is_kept, void *context, uint32_t *ret_offset);

/*
 * Adds an entry behind the others, for loading: -EINVAL when the MAC, the offset or the number of
 * entries says that the list was tampered with; -ENOMEM.
 */
int reservations_add(struct reservations *reservations, struct mac mac, uint32_t offset);

/*
 * Makes an offset a MAC's: its other entry and another MAC's with the offset go. Returns 1 when the
 * list changed, 0 when not, -ENOMEM.
 */
int reservations_set(struct reservations *reservations, struct mac mac, uint32_t offset);

/* Drops the entries outside [first, last]. */
void reservations_limit(struct reservations *reservations, uint32_t first, uint32_t last);

/* Frees the entries; the list is empty and usable afterwards. */
void reservations_done(struct reservations *reservations);
