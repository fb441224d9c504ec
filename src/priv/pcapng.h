/*
 * The few blocks of pcapng that a capture is made of (draft-ietf-opsawg-pcapng), in the byte order
 * of this machine, which the format says of itself. Pure: bytes into buffers of the caller's.
 *
 * Interfaces are Ethernet, times are nanoseconds since 1970, UTC.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PCAPNG_PACKET_HEAD     28  /* bytes of a packet's block in front of its data */
#define PCAPNG_PACKET_TAIL_MAX 160 /* and at most behind them */
#define PCAPNG_COMMENT_MAX     128 /* bytes of a comment or name; longer ones are cut */
#define PCAPNG_BLOCK_MAX       512 /* of any block but a packet's */

enum pcapng_direction {
	PCAPNG_DIRECTION_UNKNOWN = 0,
	PCAPNG_INBOUND = 1,
	PCAPNG_OUTBOUND = 2,
};

struct pcapng_interface {
	const char *name;
	const char *comment; /* NULL: none */
	uint32_t snaplen;    /* bytes of a packet that are kept */
};

struct pcapng_packet {
	uint32_t interface; /* number of its description in the section, from 0 */
	uint64_t time_ns;
	uint32_t captured; /* bytes */
	uint32_t original; /* bytes */
	enum pcapng_direction direction;
	const char *comment; /* NULL: none */
};

struct pcapng_statistics {
	uint32_t interface;
	uint64_t start_ns, end_ns;
	uint64_t received; /* packets, dropped ones included */
	uint64_t dropped;
};

/*
 * A section's header, which comes first; application says who wrote it. Returns the bytes written,
 * or 0 when size is too small; PCAPNG_BLOCK_MAX is enough for each of these.
 */
size_t pcapng_write_section(uint8_t *buffer, size_t size, const char *application);

/* An interface, before its first packet. As above. */
size_t pcapng_write_interface(
	uint8_t *buffer, size_t size, const struct pcapng_interface *interface);

/* What became of an interface. As above. */
size_t pcapng_write_statistics(
	uint8_t *buffer, size_t size, const struct pcapng_statistics *statistics);

/*
 * Makes a block of a packet whose captured bytes are at data, with PCAPNG_PACKET_HEAD bytes of room
 * in front of them and PCAPNG_PACKET_TAIL_MAX behind. Returns the size of the block, which begins
 * PCAPNG_PACKET_HEAD bytes before data.
 */
size_t pcapng_wrap_packet(uint8_t *data, const struct pcapng_packet *packet);
