/*
 * How a network's addresses are shared out. Pure; the front gives reservations out of what priv
 * tells dnsmasq to leave alone.
 */
#pragma once

#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>

/* Addresses that dnsmasq may give to VMs nobody announced, at most: its lease table has a limit
 * too. */
#define ADDRESS_POOL_DYNAMIC_MAX 4096

/*
 * Offsets from the subnet's base address, first and last included; first > last: none. Offset 1 is
 * the gateway, the last offset of all the broadcast address; neither is in the pool.
 */
struct address_pool {
	uint32_t reserved_first, reserved_last; /* the front's, one a MAC */
	uint32_t dynamic_first, dynamic_last;   /* dnsmasq's own */
};

/* The top quarter is dynamic, what lies below is for reservations. subnet has a prefix length
 * of 8..30. */
void address_pool_split(struct ipv4_subnet subnet, struct address_pool *ret_pool);

/* Wholly inside one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918 3). */
bool ipv4_subnet_is_private(struct ipv4_subnet subnet);
