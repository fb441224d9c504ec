/*
 * The Internet checksum (RFC 1071): 16-bit words added in ones' complement.
 *
 * Words are taken in memory order, whatever the machine's, because the sum of swapped words is the
 * swapped sum: what checksum_finish() returns is stored as it is, and a number to be added goes
 * through htons() first.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Returns sum plus the words of length bytes, of which the first must stand at an even place of
 * what is summed. An odd last byte counts as a word with a zero behind it. Exact for up to 4 GiB.
 * Uses the widest vectors that are worth it on this CPU; any alignment will do.
 */
uint64_t checksum_add(uint64_t sum, const void *bytes, size_t length);

/* The same for a header of at most some 60 bytes, for which a call would cost more than the sum. */
static inline uint64_t checksum_add_short(uint64_t sum, const void *bytes, size_t length)
{
	const uint8_t *next = bytes;

	for (; length >= sizeof(uint32_t); length -= sizeof(uint32_t), next += sizeof(uint32_t)) {
		uint32_t word;

		memcpy(&word, next, sizeof(word));
		sum += word;
	}
	if (length > 0) {
		uint32_t word = 0;

		memcpy(&word, next, length);
		sum += word;
	}
	return sum;
}

/* Folds a sum to 16 bits: zero only for the sum of zeros. */
static inline uint16_t checksum_fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)sum;
}

/* What goes into a checksum field. */
static inline uint16_t checksum_finish(uint64_t sum)
{
	return (uint16_t)~checksum_fold(sum);
}

/* One way to sum, for tests and measurements of each. */
struct checksum_way {
	const char *name;
	uint64_t (*sum)(const uint8_t *bytes, size_t length);
};

/* The ways this CPU can go, the best first; *ret_count tells how many. They live for ever. */
const struct checksum_way *checksum_ways(size_t *ret_count);
