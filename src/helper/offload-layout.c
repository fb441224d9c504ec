#include "helper/offload-layout.h"

#include "helper/checksum.h"

#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>

#define VLAN_TAGS_MAX 2
/* More than any stack sends: RFC 8200 4.1 lists seven, of which one comes twice. */
#define EXTENSION_HEADERS_MAX 8

#define ETHERTYPE_SERVICE_VLAN 0x88a8

#define IPV4_ADDRESSES_SIZE 8
#define IPV6_ADDRESSES_SIZE 32

/* Returns the EtherType behind the tags, 0 if the frame ends there. */
static uint16_t skip_tags(const uint8_t *data, size_t length, size_t *ret_network)
{
	size_t network = ETHERNET_HEADER_SIZE;

	for (size_t tags = 0; network <= length; network += VLAN_TAG_SIZE, tags++) {
		uint16_t type = load16(data + network - sizeof(type));

		if ((type != ETHERTYPE_VLAN && type != ETHERTYPE_SERVICE_VLAN) ||
			tags == VLAN_TAGS_MAX) {
			*ret_network = network;
			return type;
		}
	}
	return 0;
}

static int parse_ipv4(const uint8_t *data, size_t length, struct offload_layout *ret_layout)
{
	const uint8_t *ip = data + ret_layout->network;
	size_t header_size;

	if (length - ret_layout->network < IPV4_HEADER_SIZE || ip[0] >> 4 != 4)
		return -EBADMSG;
	header_size = (ip[0] & 0x0f) * sizeof(uint32_t);
	if (header_size < IPV4_HEADER_SIZE || header_size > length - ret_layout->network)
		return -EBADMSG;
	ret_layout->ip_version = 4;
	ret_layout->protocol = ip[IPV4_PROTOCOL];
	ret_layout->is_fragment = load16(ip + IPV4_FRAGMENT) & IPV4_FRAGMENT_MASK;
	ret_layout->transport = ret_layout->network + header_size;
	return 0;
}

/* Returns the size of an extension header, 0 for one that is none or unknown. */
static size_t extension_size(uint8_t type, const uint8_t *header)
{
	switch (type) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return (header[1] + 1) * sizeof(uint64_t);
	case IPPROTO_FRAGMENT:
		return sizeof(uint64_t);
	default:
		return 0;
	}
}

static int parse_ipv6(const uint8_t *data, size_t length, struct offload_layout *ret_layout)
{
	const uint8_t *ip = data + ret_layout->network;
	size_t at = ret_layout->network + IPV6_HEADER_SIZE;
	uint8_t type;

	if (at > length || ip[0] >> 4 != 6)
		return -EBADMSG;
	type = ip[IPV6_NEXT_HEADER];
	for (size_t i = 0; i < EXTENSION_HEADERS_MAX && at + sizeof(uint64_t) <= length; i++) {
		size_t size = extension_size(type, data + at);

		if (size == 0)
			break;
		ret_layout->is_fragment = type == IPPROTO_FRAGMENT;
		type = data[at];
		at += size;
		if (ret_layout->is_fragment)
			break;
	}
	if (at > length)
		return -EBADMSG;
	ret_layout->ip_version = 6;
	ret_layout->protocol = type;
	ret_layout->transport = at;
	return 0;
}

static int parse_transport(const uint8_t *data, size_t length, struct offload_layout *ret_layout)
{
	size_t left = length - ret_layout->transport;
	size_t size = 0;

	if (!ret_layout->is_fragment && ret_layout->protocol == IPPROTO_TCP) {
		if (left < TCP_HEADER_SIZE)
			return -EBADMSG;
		size = (data[ret_layout->transport + TCP_DATA_OFFSET] >> 4) * sizeof(uint32_t);
		if (size < TCP_HEADER_SIZE)
			return -EBADMSG;
	} else if (!ret_layout->is_fragment && ret_layout->protocol == IPPROTO_UDP) {
		size = UDP_HEADER_SIZE;
	}
	if (size > left)
		return -EBADMSG;
	ret_layout->payload = ret_layout->transport + size;
	return 0;
}

int offload_layout_parse(const uint8_t *data, size_t length, struct offload_layout *ret_layout)
{
	struct offload_layout layout = {0};
	int error;

	switch (skip_tags(data, length, &layout.network)) {
	case ETHERTYPE_IP:
		error = parse_ipv4(data, length, &layout);
		break;
	case ETHERTYPE_IPV6:
		error = parse_ipv6(data, length, &layout);
		break;
	default:
		return -ENOMSG;
	}
	if (!error)
		error = parse_transport(data, length, &layout);
	if (error)
		return error;
	*ret_layout = layout;
	return 0;
}

size_t offload_layout_frame_max(const uint8_t *data, size_t length, size_t mtu)
{
	size_t network = ETHERNET_HEADER_SIZE;

	skip_tags(data, length, &network);
	return mtu + network;
}

uint64_t offload_layout_pseudo_sum(
	const uint8_t *data, const struct offload_layout *layout, size_t transport_length)
{
	const uint8_t *ip = data + layout->network;
	uint64_t sum = (uint64_t)htons(layout->protocol) + htonl((uint32_t)transport_length);

	if (layout->ip_version == 4)
		return checksum_add_short(sum, ip + IPV4_SOURCE, IPV4_ADDRESSES_SIZE);
	return checksum_add_short(sum, ip + IPV6_SOURCE, IPV6_ADDRESSES_SIZE);
}
