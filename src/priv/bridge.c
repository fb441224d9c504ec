/* Making a network's bridge. */

#include "priv/rtnl.h"

#include <errno.h>
#include <linux/if_link.h>
#include <netlink/errno.h>
#include <string.h>

static int put_bridge_settings(struct nl_msg *message)
{
	struct nlattr *info = nla_nest_start(message, IFLA_LINKINFO);
	struct nlattr *data;

	if (!info || nla_put_string(message, IFLA_INFO_KIND, "bridge") < 0)
		return -EMSGSIZE;
	data = nla_nest_start(message, IFLA_INFO_DATA);
	/* Should somebody turn STP on, ports must not be silent for 15 s, in which DHCP gives up.
	 */
	if (!data || nla_put_u32(message, IFLA_BR_FORWARD_DELAY, 0) < 0 ||
		nla_put_u32(message, IFLA_BR_STP_STATE, 0) < 0 ||
		nla_put_u8(message, IFLA_BR_MCAST_SNOOPING, 0) < 0)
		return -EMSGSIZE;
	nla_nest_end(message, data);
	nla_nest_end(message, info);
	return 0;
}

/*
 * The MAC is the tag of the moment: it comes with the creation, the alias only after. The MTU is
 * one off, because the kernel pins a bridge's MTU only when a later request changes it
 * (br_change_mtu), and an unpinned one goes back to 1500 when the last port leaves.
 */
static int request_bridge(struct links *links, const struct bridge_wish *wish, const char *name)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC};
	struct mac mac = bridge_mac(links->instance, wish->network);

	if (!message)
		return -ENOMEM;
	if (nlmsg_append(message, &header, sizeof(header), NLMSG_ALIGNTO) < 0 ||
		nla_put_string(message, IFLA_IFNAME, name) < 0 ||
		nla_put(message, IFLA_ADDRESS, sizeof(mac.bytes), mac.bytes) < 0 ||
		nla_put_u32(message, IFLA_MTU, wish->mtu + 1) < 0 ||
		put_bridge_settings(message) < 0)
		return -EMSGSIZE;
	return rtnl_request(links, take_ptr(message));
}

static struct nl_addr *nl_addr_from_ipv4(struct in_addr address, int prefix_length)
{
	struct nl_addr *built = nl_addr_build(AF_INET, &address, sizeof(address));

	if (built)
		nl_addr_set_prefixlen(built, prefix_length);
	return built;
}

static int add_gateway_address(
	struct links *links, int index, struct ipv4_subnet subnet, uint32_t gateway_offset)
{
	cleanup_with(rtnl_addr_put) struct rtnl_addr *address = rtnl_addr_alloc();
	cleanup_with(nl_addr_put) struct nl_addr *local =
		nl_addr_from_ipv4(ipv4_subnet_host(subnet, gateway_offset), subnet.prefix_length);
	cleanup_with(nl_addr_put) struct nl_addr *broadcast =
		nl_addr_from_ipv4(ipv4_subnet_host(subnet, ipv4_subnet_size(subnet) - 1), 32);

	if (!address || !local || !broadcast)
		return -ENOMEM;
	rtnl_addr_set_ifindex(address, index);
	if (rtnl_addr_set_local(address, local) < 0 ||
		rtnl_addr_set_broadcast(address, broadcast) < 0)
		return -EINVAL;
	return rtnl_error_to_errno(rtnl_addr_add(links->socket, address, 0));
}

/* A bridge that a broker killed between creating and tagging it left: our name, our MAC, never up,
 * no alias. */
static bool is_half_made(struct links *links, struct rtnl_link *link, const char *network)
{
	struct mac mac = bridge_mac(links->instance, network);
	struct nl_addr *address = rtnl_link_get_addr(link);
	const char *kind = rtnl_link_get_type(link);

	return !rtnl_link_get_ifalias(link) && !(rtnl_link_get_flags(link) & IFF_UP) && kind &&
	       strcmp(kind, "bridge") == 0 && address &&
	       nl_addr_get_len(address) == sizeof(mac.bytes) &&
	       memcmp(nl_addr_get_binary_addr(address), mac.bytes, sizeof(mac.bytes)) == 0;
}

static int check_name_free(
	struct links *links, const char *network, const char *name, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	struct link_tag tag;
	int error = rtnl_find_link(links, name, &link);

	if (error == -ENODEV)
		return 0;
	if (error)
		return outcome_fail(outcome, error, "looking for %s: %s", name, strerror(-error));
	if (is_half_made(links, link, network))
		return rtnl_delete_link(links, rtnl_link_get_ifindex(link));
	if (rtnl_read_tag(links, link, LINK_KIND_BRIDGE, &tag) < 0)
		return outcome_fail(outcome, -EEXIST,
			"a link %s that is not ours exists: remove or rename it", name);
	return outcome_fail(
		outcome, -EEXIST, "%s is the bridge of network \"%s\" already", name, tag.network);
}

struct step {
	const char *what;
	int error;
};

/* Everything between an untagged link and a serving bridge; the first failed step is what it
 * returns. */
static struct step finish_bridge(
	struct links *links, const struct bridge_wish *wish, const char *name, int index)
{
	struct link_tag tag = {
		.instance = links->instance,
		.kind = LINK_KIND_BRIDGE,
		.mode = wish->mode,
	};
	struct step step = {.what = "tagging"};
	char altname[LINK_ALTNAME_SIZE];

	bridge_altname(wish->network, altname);
	step.error = text_copy(tag.network, sizeof(tag.network), wish->network);
	if (!step.error)
		step.error = text_copy(tag.uplink, sizeof(tag.uplink), wish->uplink);
	if (!step.error)
		step.error = rtnl_tag_link(links, index, &tag, altname, wish->mtu);
	if (!step.error)
		step = (struct step){"setting up IPv6 on", rtnl_set_ipv6(links, index, wish, name)};
	if (!step.error)
		step = (struct step){"giving an address to",
			add_gateway_address(links, index, wish->subnet, wish->gateway_offset)};
	if (!step.error)
		step = (struct step){"starting", rtnl_start_link(links, index, 0)};
	return step;
}

int links_create_bridge(
	struct links *links, const struct bridge_wish *wish, struct verb_outcome *outcome)
{
	char name[IFNAMSIZ];
	struct step step;
	int index;
	int error;

	bridge_interface_name(links->instance, wish->network, name);
	error = check_name_free(links, wish->network, name, outcome);
	if (!error)
		error = rtnl_check_subnet_free(links, wish->subnet, outcome);
	if (!error && wish->has_ipv6)
		error = rtnl_check_ipv6(links, wish->ipv6_prefix, outcome);
	if (error)
		return error;
	error = request_bridge(links, wish, name);
	if (error)
		return outcome_fail(outcome, error, "creating %s: %s", name, strerror(-error));
	index = (int)if_nametoindex(name);
	step = finish_bridge(links, wish, name, index);
	if (step.error) {
		/* Everything made here hangs on the link and goes with it. */
		rtnl_delete_link(links, index);
		return outcome_fail(
			outcome, step.error, "%s %s: %s", step.what, name, strerror(-step.error));
	}
	outcome->value = (uint32_t)index;
	return 0;
}
