/* Reading networks back from the kernel's links and addresses. */

#include "priv/pool.h"
#include "priv/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

int links_open(uint32_t instance, const char *runtime_directory, struct links **ret_links)
{
	cleanup_with(links_close) struct links *links = calloc(1, sizeof(*links));
	int error;

	if (!links)
		return -ENOMEM;
	links->instance = instance;
	links->runtime_directory = runtime_directory;
	links->socket = nl_socket_alloc();
	if (!links->socket)
		return -ENOMEM;
	error = nl_connect(links->socket, NETLINK_ROUTE);
	if (error)
		return rtnl_error_to_errno(error);
	*ret_links = take_ptr(links);
	return 0;
}

void links_close(struct links *links)
{
	if (!links)
		return;
	if (links->socket)
		nl_socket_free(links->socket);
	free(links);
}

uint32_t links_instance(const struct links *links)
{
	return links->instance;
}

const char *links_runtime_directory(const struct links *links)
{
	return links->runtime_directory;
}

/* True when addr can be what links_create_bridge() gave the link: a host of a subnet we allow. */
static bool is_gateway_address(struct rtnl_addr *address, int index, struct bridge_facts *ret_facts)
{
	struct nl_addr *local = rtnl_addr_get_local(address);
	struct ipv4_subnet subnet;
	struct in_addr gateway;
	int prefix_length = rtnl_addr_get_prefixlen(address);

	if (rtnl_addr_get_ifindex(address) != index || !local ||
		nl_addr_get_len(local) != sizeof(gateway) || prefix_length < 8 ||
		prefix_length > 30)
		return false;
	memcpy(&gateway, nl_addr_get_binary_addr(local), sizeof(gateway));
	subnet.prefix_length = (uint8_t)prefix_length;
	subnet.address.s_addr = gateway.s_addr & ipv4_subnet_mask(subnet).s_addr;
	if (!ipv4_subnet_is_private(subnet))
		return false;
	ret_facts->subnet = subnet;
	ret_facts->gateway_offset = ntohl(gateway.s_addr) - ntohl(subnet.address.s_addr);
	return true;
}

static int find_addresses(struct nl_cache *addresses, int index, struct bridge_facts *ret_facts)
{
	int error = -ENOENT;

	for (struct nl_object *object = nl_cache_get_first(addresses); object;
		object = nl_cache_get_next(object)) {
		struct rtnl_addr *address = (struct rtnl_addr *)object;

		if (error && is_gateway_address(address, index, ret_facts))
			error = 0;
		if (!ret_facts->has_ipv6)
			ret_facts->has_ipv6 =
				rtnl_read_ipv6_gateway(address, index, ret_facts->ipv6_prefix);
	}
	return error;
}

static int read_facts(struct links *links, struct nl_cache *addresses, struct rtnl_link *link,
	struct bridge_facts *ret_facts)
{
	struct bridge_facts facts = {0};
	struct link_tag tag;
	int error;

	error = rtnl_read_tag(links, link, LINK_KIND_BRIDGE, &tag);
	if (error)
		return error;
	facts.index = (uint32_t)rtnl_link_get_ifindex(link);
	facts.mode = tag.mode;
	memcpy(facts.uplink, tag.uplink, sizeof(facts.uplink));
	facts.mtu = rtnl_link_get_mtu(link);
	error = text_copy(facts.network, sizeof(facts.network), tag.network);
	if (!error)
		error = text_copy(facts.name, sizeof(facts.name), rtnl_link_get_name(link));
	if (!error)
		error = find_addresses(addresses, rtnl_link_get_ifindex(link), &facts);
	if (!error)
		*ret_facts = facts;
	return error;
}

int rtnl_find_bridge(struct links *links, const char *network, struct rtnl_link **ret_link)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	char name[IFNAMSIZ];
	struct link_tag tag;
	int error;

	bridge_interface_name(links->instance, network, name);
	error = rtnl_find_link(links, name, &link);
	if (error)
		return error == -ENODEV ? -ENOENT : error;
	error = rtnl_read_tag(links, link, LINK_KIND_BRIDGE, &tag);
	if (error)
		return error;
	if (strcmp(tag.network, network) != 0)
		return -ENOENT;
	*ret_link = take_ptr(link);
	return 0;
}

int links_get_bridge(struct links *links, const char *network, struct bridge_facts *ret_facts,
	struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	cleanup_with(nl_cache_free) struct nl_cache *addresses = NULL;
	int error;

	error = rtnl_find_bridge(links, network, &link);
	if (error)
		return outcome_fail(outcome, error, "network \"%s\" has no bridge", network);
	error = rtnl_addr_alloc_cache(links->socket, &addresses);
	if (error)
		return outcome_fail(outcome, rtnl_error_to_errno(error), "reading addresses: %s",
			nl_geterror(error));
	error = read_facts(links, addresses, link, ret_facts);
	if (error)
		return outcome_fail(outcome, error,
			"bridge %s of network \"%s\" has lost its address",
			rtnl_link_get_name(link), network);
	return 0;
}

int links_list_bridges(
	struct links *links, struct bridge_facts **ret_bridges, size_t *ret_bridges_count)
{
	cleanup_with(nl_cache_free) struct nl_cache *all = NULL;
	cleanup_with(nl_cache_free) struct nl_cache *addresses = NULL;
	struct bridge_facts *bridges;
	size_t count = 0;
	int error;

	error = rtnl_link_alloc_cache(links->socket, AF_UNSPEC, &all);
	if (!error)
		error = rtnl_addr_alloc_cache(links->socket, &addresses);
	if (error)
		return rtnl_error_to_errno(error);
	bridges = calloc((size_t)nl_cache_nitems(all) + 1, sizeof(*bridges));
	if (!bridges)
		return -ENOMEM;
	for (struct nl_object *object = nl_cache_get_first(all); object;
		object = nl_cache_get_next(object))
		if (read_facts(links, addresses, (struct rtnl_link *)object, &bridges[count]) == 0)
			count++;
	*ret_bridges = bridges;
	*ret_bridges_count = count;
	return 0;
}

static struct rtnl_link *find_member(struct nl_cache *all, int bridge)
{
	for (struct nl_object *object = nl_cache_get_first(all); object;
		object = nl_cache_get_next(object))
		if (rtnl_link_get_master((struct rtnl_link *)object) == bridge)
			return (struct rtnl_link *)object;
	return NULL;
}

static int check_unused(struct links *links, struct rtnl_link *bridge, struct verb_outcome *outcome)
{
	cleanup_with(nl_cache_free) struct nl_cache *all = NULL;
	struct rtnl_link *member;
	int error;

	error = rtnl_link_alloc_cache(links->socket, AF_UNSPEC, &all);
	if (error)
		return outcome_fail(outcome, rtnl_error_to_errno(error), "reading links: %s",
			nl_geterror(error));
	member = find_member(all, rtnl_link_get_ifindex(bridge));
	if (member)
		return outcome_fail(outcome, -EBUSY, "%s is still on %s",
			rtnl_link_get_name(member), rtnl_link_get_name(bridge));
	return 0;
}

static int find_unused_bridge(struct links *links, const char *network, struct rtnl_link **ret_link,
	struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	int error;

	error = rtnl_find_bridge(links, network, &link);
	if (error)
		return outcome_fail(outcome, error, "network \"%s\" has no bridge", network);
	error = check_unused(links, link, outcome);
	if (!error)
		*ret_link = take_ptr(link);
	return error;
}

int links_check_bridge_unused(
	struct links *links, const char *network, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;

	return find_unused_bridge(links, network, &link, outcome);
}

int links_delete_bridge(struct links *links, const char *network, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	int error;

	error = find_unused_bridge(links, network, &link, outcome);
	if (error)
		return error;
	error = rtnl_delete_link(links, rtnl_link_get_ifindex(link));
	if (error)
		return outcome_fail(outcome, error, "deleting %s: %s", rtnl_link_get_name(link),
			strerror(-error));
	return 0;
}
