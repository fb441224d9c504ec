#include "broker/reservations.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

static struct reservation *find_mac(const struct reservations *reservations, struct mac mac)
{
	for (size_t i = 0; i < reservations->count; i++)
		if (memcmp(&reservations->entries[i].mac, &mac, sizeof(mac)) == 0)
			return &reservations->entries[i];
	return NULL;
}

static struct reservation *find_offset(const struct reservations *reservations, uint32_t offset)
{
	for (size_t i = 0; i < reservations->count; i++)
		if (reservations->entries[i].offset == offset)
			return &reservations->entries[i];
	return NULL;
}

static void remove_entry(struct reservations *reservations, struct reservation *entry)
{
	size_t behind = (size_t)(reservations->entries + reservations->count - (entry + 1));

	memmove(entry, entry + 1, behind * sizeof(*entry));
	reservations->count--;
}

static int append(struct reservations *reservations, struct mac mac, uint32_t offset)
{
	struct reservation *grown = reallocarray(
		reservations->entries, reservations->count + 1, sizeof(*reservations->entries));

	if (!grown)
		return -ENOMEM;
	reservations->entries = grown;
	grown[reservations->count++] = (struct reservation){.mac = mac, .offset = offset};
	return 0;
}

static uint32_t limit_last(uint32_t first, uint32_t last)
{
	return last - first >= RESERVATIONS_MAX ? first + RESERVATIONS_MAX - 1 : last;
}

static int find_free_offset(const struct reservations *reservations, uint32_t first, uint32_t last,
	uint32_t *ret_offset)
{
	bool taken[RESERVATIONS_MAX] = {false};

	if (first > last)
		return -ENOSPC;
	last = limit_last(first, last);
	for (size_t i = 0; i < reservations->count; i++)
		if (reservations->entries[i].offset >= first &&
			reservations->entries[i].offset <= last)
			taken[reservations->entries[i].offset - first] = true;
	for (uint32_t offset = first; offset <= last; offset++) {
		if (taken[offset - first])
			continue;
		*ret_offset = offset;
		return 0;
	}
	return -ENOSPC;
}

static struct reservation *find_unused(
	const struct reservations *reservations, reservation_is_kept *is_kept, void *context)
{
	for (size_t i = 0; i < reservations->count; i++)
		if (!is_kept(context, reservations->entries[i].mac))
			return &reservations->entries[i];
	return NULL;
}

static int recycle_offset(struct reservations *reservations, reservation_is_kept *is_kept,
	void *context, uint32_t *ret_offset)
{
	struct reservation *unused = find_unused(reservations, is_kept, context);

	if (!unused)
		return -ENOSPC;
	*ret_offset = unused->offset;
	remove_entry(reservations, unused);
	return 0;
}

/* Returns 1 when the order changed. */
static int touch_entry(struct reservations *reservations, struct reservation *entry)
{
	struct reservation kept = *entry;

	if (entry == &reservations->entries[reservations->count - 1])
		return 0;
	remove_entry(reservations, entry);
	reservations->entries[reservations->count++] = kept;
	return 1;
}

int reservations_take(struct reservations *reservations, struct mac mac, uint32_t first,
	uint32_t last, reservation_is_kept *is_kept, void *context, uint32_t *ret_offset)
{
	struct reservation *known = find_mac(reservations, mac);
	uint32_t offset;
	int result;

	if (known) {
		*ret_offset = known->offset;
		return touch_entry(reservations, known);
	}
	result = find_free_offset(reservations, first, last, &offset);
	if (result == -ENOSPC)
		result = recycle_offset(reservations, is_kept, context, &offset);
	if (result < 0)
		return result;
	result = append(reservations, mac, offset);
	if (result < 0)
		return result;
	*ret_offset = offset;
	return 1;
}

int reservations_add(struct reservations *reservations, struct mac mac, uint32_t offset)
{
	if (reservations->count == RESERVATIONS_LIST_MAX || !mac_is_unicast(mac) ||
		find_mac(reservations, mac) || find_offset(reservations, offset))
		return -EINVAL;
	return append(reservations, mac, offset);
}

int reservations_set(struct reservations *reservations, struct mac mac, uint32_t offset)
{
	struct reservation *known = find_mac(reservations, mac);
	struct reservation *holder;

	if (known && known->offset == offset)
		return 0;
	if (known)
		remove_entry(reservations, known);
	holder = find_offset(reservations, offset);
	if (holder)
		remove_entry(reservations, holder);
	return append(reservations, mac, offset) < 0 ? -ENOMEM : 1;
}

void reservations_limit(struct reservations *reservations, uint32_t first, uint32_t last)
{
	size_t kept = 0;

	for (size_t i = 0; i < reservations->count; i++)
		if (reservations->entries[i].offset >= first &&
			reservations->entries[i].offset <= last)
			reservations->entries[kept++] = reservations->entries[i];
	reservations->count = kept;
}

void reservations_done(struct reservations *reservations)
{
	free(reservations->entries);
	*reservations = (struct reservations){0};
}
