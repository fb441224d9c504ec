/* Making macvtap links (kernel: drivers/net/macvtap.c, tap.c). */

#include "priv/sysctl.h"
#include "priv/uplink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * The device node has the ifindex in its name, /dev has one directory for all network namespaces,
 * and each counts from 1: where two have the same, devtmpfs makes no second node. So ours is
 * far from what the kernel gives by itself.
 */
static int choose_index(uint32_t number)
{
	return (int)(0x40000000u | (number & 0x3fffffffu));
}

static int put_macvtap_settings(struct nl_msg *message)
{
	struct nlattr *info = nla_nest_start(message, IFLA_LINKINFO);
	struct nlattr *data;

	if (!info || nla_put_string(message, IFLA_INFO_KIND, "macvtap") < 0)
		return -EMSGSIZE;
	data = nla_nest_start(message, IFLA_INFO_DATA);
	if (!data || nla_put_u32(message, IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE) < 0)
		return -EMSGSIZE;
	nla_nest_end(message, data);
	nla_nest_end(message, info);
	return 0;
}

static int request_macvtap(struct links *links, struct rtnl_link *uplink,
	const struct macvtap_wish *wish, const char *name, int index)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC, .ifi_index = index};

	if (!message)
		return -ENOMEM;
	if (nlmsg_append(message, &header, sizeof(header), NLMSG_ALIGNTO) < 0 ||
		nla_put_string(message, IFLA_IFNAME, name) < 0 ||
		nla_put_u32(message, IFLA_LINK, (uint32_t)rtnl_link_get_ifindex(uplink)) < 0 ||
		nla_put(message, IFLA_ADDRESS, MAC_SIZE, wish->mac.bytes) < 0 ||
		put_macvtap_settings(message) < 0)
		return -EMSGSIZE;
	return rtnl_request(links, take_ptr(message));
}

/* Whether the node is that of the link: another namespace's may have its name. */
static int check_queue(int fd, const char *name, struct mac mac)
{
	struct ifreq request = {.ifr_flags = 0};

	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return -errno;
	if (strncmp(request.ifr_name, name, IFNAMSIZ) != 0)
		return -EXDEV;
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return -errno;
	return memcmp(request.ifr_hwaddr.sa_data, mac.bytes, MAC_SIZE) == 0 ? 0 : -EXDEV;
}

/* Unlike a TAP's, a macvtap's flags and header are each queue's own. */
static int open_queue(const struct macvtap_wish *wish, const char *name, int index, int *ret_fd)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int header_size = sizeof(struct virtio_net_hdr_mrg_rxbuf);
	cleanup_fd int fd = -1;
	char path[32];
	int error;

	snprintf(path, sizeof(path), "/dev/tap%d", index);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = check_queue(fd, name, wish->mac);
	if (error)
		return error;
	if (wish->queues > 1)
		request.ifr_flags |= IFF_MULTI_QUEUE;
	if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header_size) < 0 ||
		ioctl(fd, TUNSETOFFLOAD, 0) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

static int open_queues(
	const struct macvtap_wish *wish, const char *name, int index, struct verb_outcome *outcome)
{
	int error = 0;

	for (uint32_t i = 0; i < wish->queues && !error; i++) {
		int fd = -1;

		error = open_queue(wish, name, index, &fd);
		if (!error)
			error = outcome_add_fd(outcome, fd);
	}
	if (error == -ENOENT || error == -EXDEV)
		return outcome_fail(outcome, -EIO,
			"/dev/tap%d of %s did not appear: /dev must be a devtmpfs, which it is on "
			"a host and not in most containers",
			index, name);
	return error ? outcome_fail(outcome, error, "opening /dev/tap%d of %s: %s", index, name,
			       strerror(-error))
		     : 0;
}

static int tag_and_start(
	struct links *links, struct rtnl_link *uplink, const struct macvtap_wish *wish, int index)
{
	struct link_tag tag = {.instance = links->instance, .kind = LINK_KIND_MACVTAP};
	char name[IFNAMSIZ], altname[LINK_ALTNAME_SIZE];
	int error = text_copy(tag.network, sizeof(tag.network), wish->network);

	tap_interface_name(wish->number, name);
	tap_altname(wish->network, wish->number, altname);
	if (!error)
		error = rtnl_tag_link(links, index, &tag, altname, rtnl_link_get_mtu(uplink));
	if (!error)
		error = sysctl_disable_ipv6(name);
	return error ? error : rtnl_start_link(links, index, 0);
}

int macvtap_create(struct links *links, struct rtnl_link *uplink, const struct macvtap_wish *wish,
	struct verb_outcome *outcome)
{
	const char *uplink_name = rtnl_link_get_name(uplink);
	int index = choose_index(wish->number);
	char name[IFNAMSIZ];
	int error;

	tap_interface_name(wish->number, name);
	error = request_macvtap(links, uplink, wish, name, index);
	if (error)
		return outcome_fail(outcome, error, "creating macvtap %s on %s: %s", name,
			uplink_name, strerror(-error));
	error = tag_and_start(links, uplink, wish, index);
	if (error)
		outcome_fail(outcome, error,
			"starting macvtap %s on %s: %s; is its MAC in use there?", name,
			uplink_name, strerror(-error));
	if (!error)
		error = open_queues(wish, name, index, outcome);
	if (error) {
		fd_list_done(&outcome->fds);
		rtnl_delete_link(links, index);
		return error;
	}
	outcome->value = (uint32_t)index;
	return VERB_IS_MACVTAP;
}
