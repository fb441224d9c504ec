/*
 * The addresses of a network as --start-address, --end-address and --subnet-mask say them. Pure.
 */
#pragma once

#include "base/text.h"

/* All in network byte order. start is the host's own address, VMs have start+1 to end. */
struct address_range {
	struct in_addr start, end, mask;
};

/* The same as a subnet and offsets from its base address. */
struct address_layout {
	struct ipv4_subnet subnet;
	uint32_t gateway_offset;
	uint32_t last_offset;
};

/*
 * NULL with *ret_layout filled in, or (static storage) what a range has to be that this one is not:
 * private (RFC 1918 3), within one subnet of 8 to 30 bits, with room for a VM.
 */
const char *address_range_resolve(
	const struct address_range *range, struct address_layout *ret_layout);

/* Wholly inside one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918 3). */
bool ipv4_subnet_is_private(struct ipv4_subnet subnet);
