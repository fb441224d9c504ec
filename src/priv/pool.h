/*
 * How a network's addresses are shared out. Pure; the front gives reservations out of what priv
 * tells dnsmasq to leave alone.
 */
#pragma once

#include "base/address-range.h"

#include <stdbool.h>
#include <stdint.h>

/* Addresses that dnsmasq may give to VMs nobody announced, at most: its lease table has a limit
 * too. */
#define ADDRESS_POOL_DYNAMIC_MAX 4096

/*
 * Offsets from the subnet's base address, first and last included; first > last: none. What lies
 * outside of both is for addresses that people give by hand.
 */
struct address_pool {
	uint32_t reserved_first, reserved_last; /* the front's, one a MAC */
	uint32_t dynamic_first, dynamic_last;   /* dnsmasq's own */
};

/*
 * VMs get what lies between the gateway and the last offset, which itself is theirs, too: the top
 * quarter is dynamic, what lies below is for reservations. subnet has a prefix length of 8..30;
 * an offset of 0 means the first host as gateway, and the last host.
 */
void address_pool_split(struct ipv4_subnet subnet, uint32_t gateway_offset, uint32_t last_offset,
	struct address_pool *ret_pool);

/* Both offsets as address_pool_split() takes them lie in the subnet, with room for a VM. */
bool address_offsets_are_valid(
	struct ipv4_subnet subnet, uint32_t gateway_offset, uint32_t last_offset);
