#include "priv/pool.h"

bool address_offsets_are_valid(
	struct ipv4_subnet subnet, uint32_t gateway_offset, uint32_t last_offset)
{
	uint32_t last_host = ipv4_subnet_size(subnet) - 2;
	uint32_t gateway = gateway_offset ? gateway_offset : 1;
	uint32_t last = last_offset ? last_offset : last_host;

	return gateway < last && last <= last_host;
}

void address_pool_split(struct ipv4_subnet subnet, uint32_t gateway_offset, uint32_t last_offset,
	struct address_pool *ret_pool)
{
	uint32_t first = (gateway_offset ? gateway_offset : 1) + 1;
	uint32_t last = last_offset ? last_offset : ipv4_subnet_size(subnet) - 2;
	uint32_t dynamic = (last - first + 1) / 4;

	if (dynamic > ADDRESS_POOL_DYNAMIC_MAX)
		dynamic = ADDRESS_POOL_DYNAMIC_MAX;
	*ret_pool = (struct address_pool){
		.reserved_first = first,
		.reserved_last = last - dynamic,
		.dynamic_first = last - dynamic + 1,
		.dynamic_last = last,
	};
}
