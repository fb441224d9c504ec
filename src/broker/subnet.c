#include "broker/subnet.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>

#define SHORTEST_PREFIX_OF_A_USE 8

int subnet_uses_add(struct subnet_uses *uses, struct ipv4_subnet subnet, const char *format, ...)
{
	struct subnet_use *grown =
		reallocarray(uses->entries, uses->count + 1, sizeof(*uses->entries));
	va_list arguments;

	if (!grown)
		return -ENOMEM;
	uses->entries = grown;
	grown[uses->count].subnet = subnet;
	va_start(arguments, format);
	vsnprintf(grown[uses->count].owner, SUBNET_OWNER_SIZE, format, arguments);
	va_end(arguments);
	uses->count++;
	return 0;
}

void subnet_uses_done(struct subnet_uses *uses)
{
	free(uses->entries);
	*uses = (struct subnet_uses){0};
}

const struct subnet_use *subnet_find_use(const struct subnet_uses *uses, struct ipv4_subnet subnet)
{
	for (size_t i = 0; i < uses->count; i++)
		if (uses->entries[i].subnet.prefix_length >= SHORTEST_PREFIX_OF_A_USE &&
			ipv4_subnets_overlap(uses->entries[i].subnet, subnet))
			return &uses->entries[i];
	return NULL;
}

static struct ipv4_subnet make_subnet(
	uint32_t first, uint32_t second, uint32_t third, uint8_t prefix_length)
{
	return (struct ipv4_subnet){
		.address.s_addr = htonl(first << 24 | second << 16 | third << 8),
		.prefix_length = prefix_length,
	};
}

/* Runs of candidates: one octet counts from first to last. */
static const struct candidate_run {
	uint8_t first_octet;
	uint8_t second_octet; /* the counting one when third_octet is fixed */
	uint8_t third_octet;
	uint8_t last; /* last value of the counting octet */
	bool counts_third;
} candidate_runs[] = {
	/* The two that the original's users know come first. */
	{192, 168, 64, 64, true},
	{192, 168, 128, 128, true},
	{192, 168, 65, 127, true},
	{192, 168, 129, 254, true},
	{10, 64, 64, 254, false},
	{172, 16, 64, 31, false},
};

bool subnet_get_candidate(size_t index, struct ipv4_subnet *ret_subnet)
{
	for (size_t i = 0; i < array_length(candidate_runs); i++) {
		const struct candidate_run *run = &candidate_runs[i];
		uint32_t first = run->counts_third ? run->third_octet : run->second_octet;
		size_t length = run->last - first + 1u;
		uint32_t value = first + (uint32_t)index;

		if (index >= length) {
			index -= length;
			continue;
		}
		*ret_subnet = run->counts_third
				      ? make_subnet(run->first_octet, run->second_octet, value, 24)
				      : make_subnet(run->first_octet, value, run->third_octet, 24);
		return true;
	}
	return false;
}

int subnet_choose(const struct subnet_uses *uses, struct ipv4_subnet *ret_subnet)
{
	struct ipv4_subnet candidate;

	for (size_t index = 0; subnet_get_candidate(index, &candidate); index++) {
		if (subnet_find_use(uses, candidate))
			continue;
		*ret_subnet = candidate;
		return 0;
	}
	return -EADDRNOTAVAIL;
}
