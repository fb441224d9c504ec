/* Where the headers of an Ethernet frame stand. Pure: reads nothing but the frame. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>

/* Places of fields behind the first byte of their header (RFC 791, 8200, 9293, 768). */
enum {
	ETHERNET_HEADER_SIZE = 14,
	VLAN_TAG_SIZE = 4,

	IPV4_HEADER_SIZE = 20, /* without options */
	IPV4_LENGTH = 2,
	IPV4_ID = 4,
	IPV4_FRAGMENT = 6,
	IPV4_TTL = 8,
	IPV4_PROTOCOL = 9,
	IPV4_CHECKSUM = 10,
	IPV4_SOURCE = 12,

	IPV6_HEADER_SIZE = 40,
	IPV6_LENGTH = 4,
	IPV6_NEXT_HEADER = 6,
	IPV6_SOURCE = 8,

	TCP_HEADER_SIZE = 20, /* without options */
	TCP_SEQUENCE = 4,
	TCP_ACKNOWLEDGED = 8,
	TCP_DATA_OFFSET = 12,
	TCP_FLAGS = 13,
	TCP_CHECKSUM = 16,
	TCP_URGENT = 18,

	UDP_HEADER_SIZE = 8,
	UDP_LENGTH = 4,
	UDP_CHECKSUM = 6,
};

enum {
	IPV4_FRAGMENT_MASK = 0x3fff, /* more fragments, and the offset */
	IPV4_DONT_FRAGMENT = 0x4000,

	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
	TCP_URG = 0x20,
	TCP_ECE = 0x40,
	TCP_CWR = 0x80,
};

/* Offsets are bytes from the frame's first. */
struct offload_layout {
	uint8_t ip_version; /* 4 or 6 */
	uint8_t protocol;   /* IPPROTO_TCP, IPPROTO_UDP, or whatever else there is */
	bool is_fragment;   /* then there may be no transport header */
	size_t network;     /* the IP header */
	size_t transport;   /* what the IP header and its extensions or options end at */
	size_t payload;     /* behind the TCP or UDP header; transport for others and fragments */
};

static inline uint16_t load16(const uint8_t *bytes)
{
	uint16_t value;

	memcpy(&value, bytes, sizeof(value));
	return ntohs(value);
}

static inline uint32_t load32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return ntohl(value);
}

static inline void store16(uint8_t *bytes, uint16_t value)
{
	value = htons(value);
	memcpy(bytes, &value, sizeof(value));
}

static inline void store32(uint8_t *bytes, uint32_t value)
{
	value = htonl(value);
	memcpy(bytes, &value, sizeof(value));
}

/* A checksum field, in memory order as helper/checksum.h has sums. */
static inline uint16_t load_sum(const uint8_t *bytes)
{
	uint16_t value;

	memcpy(&value, bytes, sizeof(value));
	return value;
}

static inline void store_sum(uint8_t *bytes, uint16_t value)
{
	memcpy(bytes, &value, sizeof(value));
}

/*
 * Finds the headers of an IPv4 or IPv6 frame, behind up to two VLAN tags. IPv6 extension headers
 * that may stand before TCP or UDP are walked over (hop-by-hop, routing, destination, fragment).
 * Returns 0, -ENOMSG for a frame that is neither, or -EBADMSG for one that ends within its headers.
 * What IP says of the packet's length is not looked at.
 */
int offload_layout_parse(const uint8_t *data, size_t length, struct offload_layout *ret_layout);

/* Returns how long the frame may be in a network of that MTU, which counts neither the Ethernet
 * header nor VLAN tags. */
size_t offload_layout_frame_max(const uint8_t *data, size_t length, size_t mtu);

/*
 * Returns the sum of the pseudo-header (RFC 9293 3.1, 8200 8.1) for a transport header and payload
 * of transport_length bytes. The destination is the IP header's: with a routing header that has
 * segments left the sender meant another.
 */
uint64_t offload_layout_pseudo_sum(
	const uint8_t *data, const struct offload_layout *layout, size_t transport_length);
