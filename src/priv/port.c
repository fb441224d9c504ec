/* How ports of bridges are kept: their flags, and the bridge's static entries for what is behind
 * them (kernel: networking/bridge.rst; linux/if_link.h, linux/neighbour.h). */

#include "priv/rtnl.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>

/*
 * A locked port learns nothing: its one entry is ours. And it gets no frames for MACs that the
 * bridge does not know: they cannot be for its VM.
 */
static int put_flags(struct nl_msg *message, const struct link_port *port)
{
	struct nlattr *flags = nla_nest_start(message, IFLA_PROTINFO | NLA_F_NESTED);

	if (!flags || (port->isolated && nla_put_u8(message, IFLA_BRPORT_ISOLATED, 1) < 0))
		return -EMSGSIZE;
	if (port->locked && (nla_put_u8(message, IFLA_BRPORT_LOCKED, 1) < 0 ||
				    nla_put_u8(message, IFLA_BRPORT_LEARNING, 0) < 0 ||
				    nla_put_u8(message, IFLA_BRPORT_UNICAST_FLOOD, 0) < 0))
		return -EMSGSIZE;
	nla_nest_end(message, flags);
	return 0;
}

static int set_flags(struct links *links, int index, const struct link_port *port)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		rtnl_new_link_message(RTM_SETLINK, AF_BRIDGE, index);

	if (!message || put_flags(message, port) < 0)
		return -ENOMEM;
	return rtnl_request(links, take_ptr(message));
}

/* Sticky: no frame moves it to another port (kernel 4.20). It replaces one that is elsewhere. */
static int write_entry(struct links *links, int index, struct mac mac)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		nlmsg_alloc_simple(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
	struct ndmsg header = {
		.ndm_family = AF_BRIDGE,
		.ndm_ifindex = index,
		.ndm_state = NUD_NOARP,
		.ndm_flags = NTF_MASTER | NTF_STICKY,
	};

	if (!message || nlmsg_append(message, &header, sizeof(header), NLMSG_ALIGNTO) < 0 ||
		nla_put(message, NDA_LLADDR, sizeof(mac.bytes), mac.bytes) < 0)
		return -ENOMEM;
	return rtnl_request(links, take_ptr(message));
}

int rtnl_keep_port(struct links *links, int index, const struct link_port *port)
{
	int error;

	if (!port->isolated && !port->locked)
		return 0;
	error = set_flags(links, index, port);
	if (!error && port->locked)
		error = write_entry(links, index, port->mac);
	return error;
}

int links_list_taps(struct links *links, struct tap_facts **ret_taps, size_t *ret_taps_count)
{
	cleanup_with(nl_cache_free) struct nl_cache *all = NULL;
	struct tap_facts *taps;
	size_t count = 0;
	int error = rtnl_link_alloc_cache(links->socket, AF_UNSPEC, &all);

	if (error)
		return rtnl_error_to_errno(error);
	taps = calloc((size_t)nl_cache_nitems(all) + 1, sizeof(*taps));
	if (!taps)
		return -ENOMEM;
	for (struct nl_object *object = nl_cache_get_first(all); object;
		object = nl_cache_get_next(object)) {
		struct rtnl_link *link = (struct rtnl_link *)object;
		struct tap_facts *tap = &taps[count];
		struct link_tag tag;

		if (rtnl_read_tag(links, link, LINK_KIND_TAP, &tag) < 0 ||
			text_copy(tap->name, sizeof(tap->name), rtnl_link_get_name(link)) < 0)
			continue;
		tap->index = (uint32_t)rtnl_link_get_ifindex(link);
		memcpy(tap->network, tag.network, sizeof(tap->network));
		tap->mtu = rtnl_link_get_mtu(link);
		tap->port = tag.port;
		count++;
	}
	*ret_taps = taps;
	*ret_taps_count = count;
	return 0;
}

int links_keep_ports(struct links *links, struct verb_outcome *outcome)
{
	cleanup_free struct tap_facts *taps = NULL;
	size_t taps_count;
	int result = links_list_taps(links, &taps, &taps_count);

	if (result)
		return outcome_fail(outcome, result, "reading links: %s", strerror(-result));
	for (size_t i = 0; i < taps_count; i++) {
		int error = rtnl_keep_port(links, (int)taps[i].index, &taps[i].port);

		/* One that is on no bridge any more is for the front to judge. */
		if (error && error != -ENODEV && error != -EOPNOTSUPP)
			result = outcome_fail(outcome, error, "keeping the port of %s: %s",
				taps[i].name, strerror(-error));
	}
	return result;
}
