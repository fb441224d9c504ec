#include "base/address-range.h"

#include "base/cleanup.h"

#include <arpa/inet.h>

#define PREFIX_LENGTH_MIN 8
#define PREFIX_LENGTH_MAX 30

bool ipv4_subnet_is_private(struct ipv4_subnet subnet)
{
	static const struct {
		uint32_t address;
		uint8_t prefix_length;
	} ranges[] = {{0x0a000000, 8}, {0xac100000, 12}, {0xc0a80000, 16}};

	for (size_t i = 0; i < array_length(ranges); i++) {
		struct ipv4_subnet range = {
			.address.s_addr = htonl(ranges[i].address),
			.prefix_length = ranges[i].prefix_length,
		};

		if (subnet.prefix_length >= range.prefix_length &&
			ipv4_subnet_contains(range, subnet.address))
			return true;
	}
	return false;
}

/* False for a mask with holes, too. */
static bool read_mask(struct in_addr mask, uint8_t *ret_prefix_length)
{
	uint32_t host_bits = ~ntohl(mask.s_addr);
	uint8_t prefix_length = (uint8_t)__builtin_popcount(mask.s_addr);

	if (host_bits & (host_bits + 1) || prefix_length < PREFIX_LENGTH_MIN ||
		prefix_length > PREFIX_LENGTH_MAX)
		return false;
	*ret_prefix_length = prefix_length;
	return true;
}

const char *address_range_resolve(
	const struct address_range *range, struct address_layout *ret_layout)
{
	struct address_layout layout;
	uint32_t base;

	if (!read_mask(range->mask, &layout.subnet.prefix_length))
		return "the mask must be one from 255.0.0.0 to 255.255.255.252, such as "
		       "255.255.255.0";
	layout.subnet.address.s_addr = range->start.s_addr & range->mask.s_addr;
	if (!ipv4_subnet_contains(layout.subnet, range->end))
		return "start and end address must lie in one subnet of that mask";
	if (!ipv4_subnet_is_private(layout.subnet))
		return "the addresses must be private: in 10.0.0.0/8, 172.16.0.0/12 or "
		       "192.168.0.0/16";
	base = ntohl(layout.subnet.address.s_addr);
	layout.gateway_offset = ntohl(range->start.s_addr) - base;
	layout.last_offset = ntohl(range->end.s_addr) - base;
	if (layout.gateway_offset < 1 || layout.last_offset > ipv4_subnet_size(layout.subnet) - 2)
		return "the first and the last address of a subnet are no hosts' addresses";
	if (layout.last_offset <= layout.gateway_offset)
		return "the end address must be higher than the start address, which is the "
		       "host's own";
	*ret_layout = layout;
	return NULL;
}
