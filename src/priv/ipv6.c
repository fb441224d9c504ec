/* IPv6 on a network's bridge: its switches and the host's own address. */

#include "priv/rtnl.h"
#include "priv/sysctl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <string.h>

/* Wider routes than any site's own prefix (RFC 4193: /48) are ways out, not uses. */
#define WIDE_PREFIX_LENGTH 16

#define PREFIX_BITS (IPV6_PREFIX_SIZE * 8)

/*
 * All before IPv6 is turned on, as a VM is on the other side of the link: it shall not be the
 * host's router, nor be able to keep the host from its address by claiming that first (RFC 4862
 * 5.4; with no detection the address is also usable at once). The link-local address follows from
 * the MAC, so that VMs keep their router over restarts; an address stays when somebody takes the
 * bridge down for a moment, as an IPv4 one does.
 */
static const struct {
	const char *key;
	char value;
} switches[] = {
	{"accept_ra", '0'},
	{"accept_redirects", '0'},
	{"autoconf", '0'},
	{"accept_dad", '0'},
	{"dad_transmits", '0'},
	{"addr_gen_mode", '0'},
	{"keep_addr_on_down", '1'},
	{"disable_ipv6", '0'},
};

static int set_switches(const char *name)
{
	int error = 0;

	for (size_t i = 0; i < array_length(switches) && !error; i++)
		error = sysctl_set_interface("ipv6", name, switches[i].key, switches[i].value);
	return error == -ENOENT ? -EAFNOSUPPORT : error;
}

static int add_address(struct links *links, int index, const uint8_t ipv6_prefix[IPV6_PREFIX_SIZE])
{
	struct in6_addr gateway = ipv6_prefix_gateway(ipv6_prefix);
	cleanup_with(rtnl_addr_put) struct rtnl_addr *address = rtnl_addr_alloc();
	cleanup_with(nl_addr_put) struct nl_addr *local =
		nl_addr_build(AF_INET6, &gateway, sizeof(gateway));

	if (!address || !local)
		return -ENOMEM;
	nl_addr_set_prefixlen(local, PREFIX_BITS);
	rtnl_addr_set_ifindex(address, index);
	rtnl_addr_set_flags(address, IFA_F_NODAD);
	if (rtnl_addr_set_local(address, local) < 0)
		return -EINVAL;
	return rtnl_error_to_errno(rtnl_addr_add(links->socket, address, 0));
}

int rtnl_set_ipv6(struct links *links, int index, const struct bridge_wish *wish, const char *name)
{
	int error;

	if (!wish->has_ipv6)
		return sysctl_disable_ipv6(name);
	error = set_switches(name);
	/* It also makes the bridge call itself a router when VMs ask for its MAC; one that does not
	 * is no router to them any more (RFC 4861 7.2.5). */
	if (!error && wish->mode == NETWORK_MODE_SHARED)
		error = sysctl_set_interface("ipv6", name, "forwarding", '1');
	return error ? error : add_address(links, index, wish->ipv6_prefix);
}

static bool overlaps(struct nl_addr *used, const uint8_t ipv6_prefix[IPV6_PREFIX_SIZE])
{
	unsigned int length = used ? nl_addr_get_prefixlen(used) : 0;
	const uint8_t *bytes = used ? nl_addr_get_binary_addr(used) : NULL;

	if (!used || nl_addr_get_family(used) != AF_INET6 || length < WIDE_PREFIX_LENGTH ||
		nl_addr_get_len(used) != sizeof(struct in6_addr))
		return false;
	if (length > PREFIX_BITS)
		length = PREFIX_BITS;
	if (memcmp(bytes, ipv6_prefix, length / 8) != 0)
		return false;
	return length % 8 == 0 ||
	       (bytes[length / 8] ^ ipv6_prefix[length / 8]) >> (8 - length % 8) == 0;
}

static int say_overlap(struct verb_outcome *outcome, struct nl_addr *used, int index)
{
	char text[INET6_ADDRSTRLEN + 8];
	char name[IFNAMSIZ] = "no interface";

	if_indextoname((unsigned int)index, name);
	return outcome_fail(outcome, -EADDRNOTAVAIL, "its IPv6 prefix overlaps the host's %s on %s",
		nl_addr2str(used, text, sizeof(text)), name);
}

/* Every address has its subnet's route, but for one that was given without (IFA_F_NOPREFIXROUTE),
 * which has one to itself. */
int rtnl_check_ipv6(struct links *links, const uint8_t ipv6_prefix[IPV6_PREFIX_SIZE],
	struct verb_outcome *outcome)
{
	cleanup_with(nl_cache_free) struct nl_cache *routes = NULL;
	int error;

	if (!sysctl_has_ipv6())
		return outcome_fail(outcome, -EAFNOSUPPORT, "this host has no IPv6");
	error = rtnl_route_alloc_cache(links->socket, AF_INET6, 0, &routes);
	if (error)
		return outcome_fail(outcome, rtnl_error_to_errno(error), "reading routes: %s",
			nl_geterror(error));
	for (struct nl_object *object = nl_cache_get_first(routes); object;
		object = nl_cache_get_next(object)) {
		struct rtnl_route *route = (struct rtnl_route *)object;

		if (overlaps(rtnl_route_get_dst(route), ipv6_prefix))
			return say_overlap(
				outcome, rtnl_route_get_dst(route), rtnl_first_hop_index(route));
	}
	return 0;
}

bool rtnl_read_ipv6_gateway(
	struct rtnl_addr *address, int index, uint8_t ret_prefix[IPV6_PREFIX_SIZE])
{
	struct nl_addr *local = rtnl_addr_get_local(address);
	const uint8_t *bytes = local ? nl_addr_get_binary_addr(local) : NULL;
	struct in6_addr gateway;

	if (rtnl_addr_get_ifindex(address) != index || !local ||
		nl_addr_get_family(local) != AF_INET6 ||
		nl_addr_get_len(local) != sizeof(gateway) ||
		rtnl_addr_get_prefixlen(address) != PREFIX_BITS || !ipv6_prefix_is_local(bytes))
		return false;
	gateway = ipv6_prefix_gateway(bytes);
	if (memcmp(&gateway, bytes, sizeof(gateway)) != 0)
		return false;
	memcpy(ret_prefix, bytes, IPV6_PREFIX_SIZE);
	return true;
}
