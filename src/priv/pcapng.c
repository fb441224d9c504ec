#include "priv/pcapng.h"

#include <string.h>

/* Block types, options and numbers of draft-ietf-opsawg-pcapng, sections 4 and 3.5. */
#define BLOCK_SECTION          0x0a0d0d0a
#define BLOCK_INTERFACE        1
#define BLOCK_STATISTICS       5
#define BLOCK_PACKET           6
#define BYTE_ORDER_MAGIC       0x1a2b3c4d
#define LINKTYPE_ETHERNET      1
#define RESOLUTION_NANOSECONDS 9
#define OPTION_END             0
#define OPTION_COMMENT         1
#define OPTION_APPLICATION     4 /* of a section */
#define OPTION_NAME            2 /* of an interface */
#define OPTION_RESOLUTION      9 /* of an interface */
#define OPTION_FLAGS           2 /* of a packet */
#define OPTION_START           2 /* of statistics, as the rest */
#define OPTION_STOP            3
#define OPTION_RECEIVED        4
#define OPTION_DROPPED         5

/* Bytes into a buffer that may be too small, which is found at the end. */
struct writer {
	uint8_t *bytes;
	size_t size;
	size_t used;
};

static void put(struct writer *writer, const void *bytes, size_t size)
{
	if (size > 0 && writer->used + size <= writer->size)
		memcpy(writer->bytes + writer->used, bytes, size);
	writer->used += size;
}

static void put_uint16(struct writer *writer, uint16_t value)
{
	put(writer, &value, sizeof(value));
}

static void put_uint32(struct writer *writer, uint32_t value)
{
	put(writer, &value, sizeof(value));
}

/* Times and counters have their high half first, whatever the byte order. */
static void put_halves(struct writer *writer, uint64_t value)
{
	put_uint32(writer, (uint32_t)(value >> 32));
	put_uint32(writer, (uint32_t)value);
}

static void put_padding(struct writer *writer)
{
	static const uint8_t zeros[3];

	put(writer, zeros, (4 - writer->used % 4) % 4);
}

static void put_option(struct writer *writer, uint16_t code, const void *value, size_t size)
{
	put_uint16(writer, code);
	put_uint16(writer, (uint16_t)size);
	put(writer, value, size);
	put_padding(writer);
}

static void put_text(struct writer *writer, uint16_t code, const char *text)
{
	if (text && *text)
		put_option(writer, code, text, strnlen(text, PCAPNG_COMMENT_MAX));
}

static void put_time(struct writer *writer, uint16_t code, uint64_t time_ns)
{
	uint32_t halves[] = {(uint32_t)(time_ns >> 32), (uint32_t)time_ns};

	put_option(writer, code, halves, sizeof(halves));
}

static void begin_block(struct writer *writer, uint32_t type)
{
	put_uint32(writer, type);
	/* Its length, when that is known. */
	put_uint32(writer, 0);
}

/* Ends the options too. Returns the block's size, 0 when there was no room. */
static size_t end_block(struct writer *writer)
{
	uint32_t length;

	put_option(writer, OPTION_END, NULL, 0);
	length = (uint32_t)(writer->used + sizeof(length));
	put_uint32(writer, length);
	if (writer->used > writer->size)
		return 0;
	memcpy(writer->bytes + 4, &length, sizeof(length));
	return writer->used;
}

size_t pcapng_write_section(uint8_t *buffer, size_t size, const char *application)
{
	struct writer writer = {.bytes = buffer, .size = size};

	begin_block(&writer, BLOCK_SECTION);
	put_uint32(&writer, BYTE_ORDER_MAGIC);
	put_uint16(&writer, 1);
	put_uint16(&writer, 0);
	/* A section that is written as it comes does not know its length. */
	put_uint32(&writer, UINT32_MAX);
	put_uint32(&writer, UINT32_MAX);
	put_text(&writer, OPTION_APPLICATION, application);
	return end_block(&writer);
}

size_t pcapng_write_interface(
	uint8_t *buffer, size_t size, const struct pcapng_interface *interface)
{
	struct writer writer = {.bytes = buffer, .size = size};
	const uint8_t resolution = RESOLUTION_NANOSECONDS;

	begin_block(&writer, BLOCK_INTERFACE);
	put_uint16(&writer, LINKTYPE_ETHERNET);
	put_uint16(&writer, 0);
	put_uint32(&writer, interface->snaplen);
	put_text(&writer, OPTION_NAME, interface->name);
	put_option(&writer, OPTION_RESOLUTION, &resolution, sizeof(resolution));
	put_text(&writer, OPTION_COMMENT, interface->comment);
	return end_block(&writer);
}

size_t pcapng_write_statistics(
	uint8_t *buffer, size_t size, const struct pcapng_statistics *statistics)
{
	struct writer writer = {.bytes = buffer, .size = size};

	begin_block(&writer, BLOCK_STATISTICS);
	put_uint32(&writer, statistics->interface);
	put_halves(&writer, statistics->end_ns);
	put_time(&writer, OPTION_START, statistics->start_ns);
	put_time(&writer, OPTION_STOP, statistics->end_ns);
	put_option(&writer, OPTION_RECEIVED, &statistics->received, sizeof(uint64_t));
	put_option(&writer, OPTION_DROPPED, &statistics->dropped, sizeof(uint64_t));
	return end_block(&writer);
}

size_t pcapng_wrap_packet(uint8_t *data, const struct pcapng_packet *packet)
{
	struct writer writer = {
		.bytes = data - PCAPNG_PACKET_HEAD,
		.size = PCAPNG_PACKET_HEAD + packet->captured + PCAPNG_PACKET_TAIL_MAX,
	};
	const uint32_t flags = packet->direction;

	begin_block(&writer, BLOCK_PACKET);
	put_uint32(&writer, packet->interface);
	put_halves(&writer, packet->time_ns);
	put_uint32(&writer, packet->captured);
	put_uint32(&writer, packet->original);
	/* The data are there. */
	writer.used += packet->captured;
	put_padding(&writer);
	if (flags)
		put_option(&writer, OPTION_FLAGS, &flags, sizeof(flags));
	put_text(&writer, OPTION_COMMENT, packet->comment);
	return end_block(&writer);
}
