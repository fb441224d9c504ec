/* What the host uses already, and where it leads out. */

#include "priv/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>

/* Wider routes than any private range are halves of a default route, as VPNs make them. */
#define WIDE_PREFIX_LENGTH 8

/* False when addr is no IPv4 subnet. */
static bool subnet_from_address(struct nl_addr *address, int prefix_length, struct ipv4_subnet *ret)
{
	struct ipv4_subnet subnet = {.prefix_length = (uint8_t)prefix_length};

	if (!address || nl_addr_get_family(address) != AF_INET ||
		nl_addr_get_len(address) != sizeof(subnet.address))
		return false;
	memcpy(&subnet.address, nl_addr_get_binary_addr(address), sizeof(subnet.address));
	subnet.address.s_addr &= ipv4_subnet_mask(subnet).s_addr;
	*ret = subnet;
	return true;
}

static int say_overlap(struct verb_outcome *outcome, struct ipv4_subnet wish,
	struct ipv4_subnet used, const char *what, int index)
{
	char wish_text[SUBNET_TEXT_SIZE];
	char used_text[SUBNET_TEXT_SIZE];
	char name[IFNAMSIZ] = "no interface";

	ipv4_subnet_to_text(wish, wish_text);
	ipv4_subnet_to_text(used, used_text);
	if_indextoname((unsigned int)index, name);
	return outcome_fail(outcome, -EADDRINUSE, "subnet %s overlaps the host's %s %s on %s",
		wish_text, what, used_text, name);
}

static int check_addresses(
	struct links *links, struct ipv4_subnet subnet, struct verb_outcome *outcome)
{
	cleanup_with(nl_cache_free) struct nl_cache *addresses = NULL;
	int error = rtnl_addr_alloc_cache(links->socket, &addresses);

	if (error)
		return outcome_fail(outcome, rtnl_error_to_errno(error), "reading addresses: %s",
			nl_geterror(error));
	for (struct nl_object *object = nl_cache_get_first(addresses); object;
		object = nl_cache_get_next(object)) {
		struct rtnl_addr *address = (struct rtnl_addr *)object;
		struct ipv4_subnet used;

		if (subnet_from_address(rtnl_addr_get_local(address),
			    rtnl_addr_get_prefixlen(address), &used) &&
			ipv4_subnets_overlap(subnet, used))
			return say_overlap(
				outcome, subnet, used, "address", rtnl_addr_get_ifindex(address));
	}
	return 0;
}

int rtnl_first_hop_index(struct rtnl_route *route)
{
	struct rtnl_nexthop *hop =
		rtnl_route_get_nnexthops(route) > 0 ? rtnl_route_nexthop_n(route, 0) : NULL;

	return hop ? rtnl_route_nh_get_ifindex(hop) : 0;
}

/* Addresses stand in the local table, which check_addresses() has covered with their whole subnets.
 */
static bool is_route_of_others(struct rtnl_route *route, struct ipv4_subnet *ret_subnet)
{
	struct nl_addr *destination = rtnl_route_get_dst(route);

	return rtnl_route_get_table(route) != RT_TABLE_LOCAL && destination &&
	       nl_addr_get_prefixlen(destination) >= WIDE_PREFIX_LENGTH &&
	       subnet_from_address(
		       destination, (int)nl_addr_get_prefixlen(destination), ret_subnet);
}

static int check_routes(
	struct links *links, struct ipv4_subnet subnet, struct verb_outcome *outcome)
{
	cleanup_with(nl_cache_free) struct nl_cache *routes = NULL;
	int error = rtnl_route_alloc_cache(links->socket, AF_INET, 0, &routes);

	if (error)
		return outcome_fail(outcome, rtnl_error_to_errno(error), "reading routes: %s",
			nl_geterror(error));
	for (struct nl_object *object = nl_cache_get_first(routes); object;
		object = nl_cache_get_next(object)) {
		struct rtnl_route *route = (struct rtnl_route *)object;
		struct ipv4_subnet used;

		if (is_route_of_others(route, &used) && ipv4_subnets_overlap(subnet, used))
			return say_overlap(
				outcome, subnet, used, "route", rtnl_first_hop_index(route));
	}
	return 0;
}

int rtnl_check_subnet_free(
	struct links *links, struct ipv4_subnet subnet, struct verb_outcome *outcome)
{
	int error = check_addresses(links, subnet, outcome);

	return error ? error : check_routes(links, subnet, outcome);
}

static bool leads_to_the_world(struct rtnl_route *route)
{
	struct nl_addr *destination = rtnl_route_get_dst(route);

	return rtnl_route_get_table(route) != RT_TABLE_LOCAL &&
	       rtnl_route_get_type(route) == RTN_UNICAST &&
	       (!destination || nl_addr_get_prefixlen(destination) < WIDE_PREFIX_LENGTH);
}

struct uplinks {
	char (*names)[IFNAMSIZ];
	size_t count;
};

static int add_uplink(struct uplinks *uplinks, const char *name)
{
	char(*names)[IFNAMSIZ];

	for (size_t i = 0; i < uplinks->count; i++)
		if (strcmp(uplinks->names[i], name) == 0)
			return 0;
	names = reallocarray(uplinks->names, uplinks->count + 1, sizeof(*names));
	if (!names)
		return -ENOMEM;
	uplinks->names = names;
	return text_copy(names[uplinks->count++], IFNAMSIZ, name);
}

static int add_uplinks_of_route(struct uplinks *uplinks, struct rtnl_route *route)
{
	int error = 0;

	for (int i = 0; i < rtnl_route_get_nnexthops(route) && !error; i++) {
		int index = rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(route, i));
		char name[IFNAMSIZ];

		/* The link may have gone since the route was read. */
		if (if_indextoname((unsigned int)index, name))
			error = add_uplink(uplinks, name);
	}
	return error;
}

int links_list_uplinks(struct links *links, int address_family, char (**ret_uplinks)[IFNAMSIZ],
	size_t *ret_uplinks_count)
{
	cleanup_with(nl_cache_free) struct nl_cache *routes = NULL;
	struct uplinks uplinks = {0};
	int error = rtnl_route_alloc_cache(links->socket, address_family, 0, &routes);

	if (error)
		return rtnl_error_to_errno(error);
	for (struct nl_object *object = nl_cache_get_first(routes); object && !error;
		object = nl_cache_get_next(object))
		if (leads_to_the_world((struct rtnl_route *)object))
			error = add_uplinks_of_route(&uplinks, (struct rtnl_route *)object);
	if (error) {
		free(uplinks.names);
		return error;
	}
	*ret_uplinks = uplinks.names;
	*ret_uplinks_count = uplinks.count;
	return 0;
}
