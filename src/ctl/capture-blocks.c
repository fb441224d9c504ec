#include "ctl/capture-blocks.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Of draft-ietf-opsawg-pcapng, section 4. */
#define BLOCK_INTERFACE  1
#define BLOCK_STATISTICS 5
#define BLOCK_PACKET     6
#define BLOCK_MIN        12
#define STATISTICS_BODY  20 /* where its options begin */
#define OPTION_DROPPED   5
#define PACKET_ORIGINAL  24 /* where its length is */

static uint32_t read_uint32(const struct capture_blocks *blocks, size_t place)
{
	uint32_t value;

	memcpy(&value, blocks->head + place, sizeof(value));
	return value;
}

static uint16_t read_uint16(const struct capture_blocks *blocks, size_t place)
{
	uint16_t value;

	memcpy(&value, blocks->head + place, sizeof(value));
	return value;
}

static size_t kept(const struct capture_blocks *blocks)
{
	return blocks->size < CAPTURE_BLOCKS_HEAD ? blocks->size : CAPTURE_BLOCKS_HEAD;
}

static void count_drops(struct capture_blocks *blocks)
{
	size_t place = STATISTICS_BODY;

	while (place + 4 + sizeof(uint64_t) <= kept(blocks)) {
		uint16_t length = read_uint16(blocks, place + 2);

		if (read_uint16(blocks, place) == OPTION_DROPPED && length == sizeof(uint64_t)) {
			uint64_t dropped;

			memcpy(&dropped, blocks->head + place + 4, sizeof(dropped));
			blocks->dropped += dropped;
			return;
		}
		place += 4 + ((length + 3u) & ~3u);
	}
}

static void count(struct capture_blocks *blocks)
{
	uint32_t type = read_uint32(blocks, 0);

	if (type == BLOCK_INTERFACE)
		blocks->interfaces++;
	if (type == BLOCK_STATISTICS)
		count_drops(blocks);
	if (type == BLOCK_PACKET && kept(blocks) >= PACKET_ORIGINAL + 4) {
		blocks->packets++;
		blocks->bytes += read_uint32(blocks, PACKET_ORIGINAL);
	}
}

/* Bytes that are still to come of this block; more than it can have while its length is not known.
 */
static size_t missing(const struct capture_blocks *blocks)
{
	return blocks->size < 8 ? 8 - blocks->size : read_uint32(blocks, 4) - blocks->size;
}

static bool has_bad_length(const struct capture_blocks *blocks)
{
	uint32_t length = read_uint32(blocks, 4);

	return length < BLOCK_MIN || length > CAPTURE_BLOCKS_MAX || length % 4 != 0;
}

int capture_blocks_take(struct capture_blocks *blocks, const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		size_t taken = missing(blocks) < size ? missing(blocks) : size;
		size_t room = CAPTURE_BLOCKS_HEAD - kept(blocks);

		memcpy(blocks->head + kept(blocks), bytes, taken < room ? taken : room);
		blocks->size += taken;
		bytes += taken;
		size -= taken;
		if (blocks->size == 8 && has_bad_length(blocks))
			return -EBADMSG;
		if (blocks->size > 8 && missing(blocks) == 0) {
			count(blocks);
			blocks->size = 0;
		}
	}
	return 0;
}
