#include "broker/adhoc.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define FIELDS 4

void adhoc_make_name(
	enum network_mode mode, const struct address_layout *layout, char name[NETWORK_NAME_SIZE])
{
	struct in_addr host = ipv4_subnet_host(layout->subnet, layout->gateway_offset);
	char address[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &host, address, sizeof(address));
	/* The longest, of 10.0.0.0/8, has 32 characters. */
	snprintf(name, NETWORK_NAME_SIZE, "%s-%s-%u-%u", network_mode_to_text(mode), address,
		layout->subnet.prefix_length, layout->last_offset);
}

static bool read_fields(char *copy, enum network_mode *ret_mode, struct address_range *ret_range)
{
	struct ipv4_subnet subnet = {{0}, 0};
	uint32_t prefix_length, last_offset;
	char *fields[FIELDS];

	for (size_t i = 0; i < FIELDS; i++) {
		fields[i] = strsep(&copy, "-");
		if (!fields[i])
			return false;
	}
	if (copy || network_mode_from_text(fields[0], ret_mode) < 0 ||
		(*ret_mode != NETWORK_MODE_SHARED && *ret_mode != NETWORK_MODE_HOST) ||
		text_to_ipv4(fields[1], &ret_range->start) < 0 ||
		text_to_uint32(fields[2], 8, 30, &prefix_length) < 0 ||
		text_to_uint32(fields[3], 1, UINT32_MAX, &last_offset) < 0)
		return false;
	subnet.prefix_length = (uint8_t)prefix_length;
	if (last_offset >= ipv4_subnet_size(subnet))
		return false;
	ret_range->mask = ipv4_subnet_mask(subnet);
	subnet.address.s_addr = ret_range->start.s_addr & ret_range->mask.s_addr;
	ret_range->end = ipv4_subnet_host(subnet, last_offset);
	return true;
}

bool adhoc_read_name(const char *name, struct network_settings *ret_settings)
{
	char copy[NETWORK_NAME_SIZE], canonical[NETWORK_NAME_SIZE];
	struct address_layout layout;
	struct address_range range;
	enum network_mode mode;

	if (text_copy(copy, sizeof(copy), name) < 0 || !read_fields(copy, &mode, &range) ||
		address_range_resolve(&range, &layout))
		return false;
	adhoc_make_name(mode, &layout, canonical);
	if (strcmp(name, canonical) != 0)
		return false;
	network_settings_init(ret_settings, mode);
	ret_settings->has_subnet = true;
	ret_settings->subnet = layout.subnet;
	ret_settings->gateway_offset = layout.gateway_offset;
	ret_settings->last_offset = layout.last_offset;
	return true;
}
