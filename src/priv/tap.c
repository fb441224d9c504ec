/* Making and removing TAPs (kernel: networking/tuntap.rst). */

#include "priv/guard.h"
#include "priv/rtnl.h"
#include "priv/sysctl.h"
#include "priv/uplink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * One queue. exclusive: it must be a new TAP; without it a name that somebody took first would be
 * joined, and the caller could not tell.
 */
static int open_queue(const char *name, bool multi_queue, bool exclusive, int *ret_fd)
{
	cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int error;

	if (fd < 0)
		return -errno;
	if (multi_queue)
		request.ifr_flags |= IFF_MULTI_QUEUE;
	if (exclusive)
		request.ifr_flags = (short)(request.ifr_flags | IFF_TUN_EXCL);
	memcpy(request.ifr_name, name, strlen(name) + 1);
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		error = -errno;
		/* IFF_TUN_EXCL says EBUSY, and a link that is no TAP EINVAL. */
		return exclusive && (error == -EBUSY || error == -EINVAL) ? -EEXIST : error;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

static int set_mac(int fd, const char *name, struct mac mac)
{
	struct ifreq request = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};

	memcpy(request.ifr_name, name, strlen(name) + 1);
	memcpy(request.ifr_hwaddr.sa_data, mac.bytes, sizeof(mac.bytes));
	return ioctl(fd, SIOCSIFHWADDR, &request) < 0 ? -errno : 0;
}

/*
 * The owner comes first: from here on no other user can join the TAP by its name. A named one keeps
 * the header size of any new TAP, since who opens it by name may rely on that; its flags are those
 * of whoever opened it last (tun_set_iff() in drivers/net/tun.c).
 */
static int configure_tap(int fd, const char *name, const struct tap_wish *wish)
{
	unsigned long owner = wish->port.named ? wish->port.owner : 0;
	int header_size = wish->port.named ? sizeof(struct virtio_net_hdr)
					   : sizeof(struct virtio_net_hdr_mrg_rxbuf);

	if (ioctl(fd, TUNSETOWNER, owner) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header_size) < 0 ||
		ioctl(fd, TUNSETOFFLOAD, 0) < 0)
		return -errno;
	return set_mac(fd, name, tap_mac(wish->number));
}

static int tag_tap(struct links *links, struct rtnl_link *bridge, const struct tap_wish *wish,
	const char *name, int index)
{
	struct link_tag tag = {
		.instance = links->instance,
		.kind = LINK_KIND_TAP,
		.port = wish->port,
	};
	char altname[LINK_ALTNAME_SIZE];
	int error = text_copy(tag.network, sizeof(tag.network), wish->network);

	tap_altname(wish->network, wish->number, altname);
	if (!error)
		error = rtnl_tag_link(links, index, &tag, altname, rtnl_link_get_mtu(bridge));
	if (!error)
		error = sysctl_disable_ipv6(name);
	return error;
}

/* What keeps the port comes between bridge and up: no frame ever passes without it. */
static int join_bridge(
	struct links *links, struct rtnl_link *bridge, const struct link_port *port, int index)
{
	int master = rtnl_link_get_ifindex(bridge);
	int error;

	if (!port->isolated && !port->locked)
		return rtnl_start_link(links, index, master);
	error = rtnl_enslave_link(links, index, master);
	if (!error)
		error = rtnl_keep_port(links, index, port);
	return error ? error : rtnl_start_link(links, index, 0);
}

/* The rules come first, but behind the tag, from which they can be made anew. */
static int attach_tap(struct links *links, struct rtnl_link *bridge, const struct tap_wish *wish,
	int index, struct verb_outcome *outcome)
{
	struct tap_facts facts = {.index = (uint32_t)index, .port = wish->port};
	int error;

	tap_interface_name(wish->number, facts.name);
	error = text_copy(facts.network, sizeof(facts.network), wish->network);
	if (!error)
		error = tag_tap(links, bridge, wish, facts.name, index);
	if (error)
		return outcome_fail(outcome, error, "tagging %s: %s", facts.name, strerror(-error));
	/* With a network's own bridge came the rules for all TAPs; with another's nothing did. */
	error = *wish->uplink ? guard_apply(links, outcome) : guard_add_tap(links, &facts, outcome);
	if (error)
		return error;
	error = join_bridge(links, bridge, &wish->port, index);
	if (error)
		return outcome_fail(outcome, error, "putting %s on %s: %s", facts.name,
			rtnl_link_get_name(bridge), strerror(-error));
	return 0;
}

static int open_queues(const char *name, const struct tap_wish *wish, struct verb_outcome *outcome)
{
	int error = 0;

	for (uint32_t i = 0; i < wish->queues && !error; i++) {
		int fd = -1;

		error = open_queue(name, wish->queues > 1, i == 0, &fd);
		if (!error)
			error = outcome_add_fd(outcome, fd);
		if (!error && i == 0)
			error = configure_tap(fd, name, wish);
	}
	return error;
}

/*
 * The kernel makes a TAP and sets its owner in two steps, and in between any local user may join a
 * multi-queue one. Now that it has its owner nobody can any more, so whoever did is counted.
 */
static int check_queues(struct links *links, int index, uint32_t queues)
{
	uint32_t attached = 0;
	int error = queues > 1 ? rtnl_count_tap_queues(index, &attached) : 0;

	if (error || queues == 1 || attached == queues)
		return error;
	error = rtnl_delete_link(links, index);
	return error ? error : -EBUSY;
}

static int fail_tap(struct verb_outcome *outcome, int error, const char *name)
{
	fd_list_done(&outcome->fds);
	if (error == -EEXIST)
		return outcome_fail(outcome, error, "a link %s exists already", name);
	if (error == -EBUSY)
		return outcome_fail(outcome, error,
			"somebody else joined %s while it was made; try again", name);
	/* No device node, or no module behind it; -EACCES and -EPERM come from it alone. */
	if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
		return outcome_fail(outcome, -EIO,
			"/dev/net/tun is missing: load the kernel module, as root: modprobe tun; a "
			"container is started with --device /dev/net/tun");
	if (error == -EACCES)
		return outcome_fail(outcome, -EIO,
			"/dev/net/tun is not open to this user; as root: chmod 0666 /dev/net/tun");
	if (error == -EPERM)
		return outcome_fail(outcome, -EIO,
			"/dev/net/tun is kept from this container's programs: start it with "
			"--device /dev/net/tun");
	return outcome_fail(outcome, error, "creating %s: %s", name, strerror(-error));
}

/*
 * Last of all, and then the fd is closed, which would be in the way of who opens the TAP by its
 * name: a priv that is killed before leaves nothing, and after it a TAP that has a tag.
 */
static int leave_tap(struct verb_outcome *outcome)
{
	if (ioctl(outcome->fds.fds[0], TUNSETPERSIST, 1) < 0) {
		int error = -errno;

		return outcome_fail(outcome, error, "keeping the TAP: %s", strerror(-error));
	}
	fd_list_done(&outcome->fds);
	return 0;
}

static int create_port(struct links *links, struct rtnl_link *bridge, const struct tap_wish *wish,
	struct verb_outcome *outcome)
{
	char name[IFNAMSIZ];
	int index;
	int error;

	tap_interface_name(wish->number, name);
	error = open_queues(name, wish, outcome);
	if (error)
		return fail_tap(outcome, error, name);
	index = (int)if_nametoindex(name);
	error = check_queues(links, index, wish->queues);
	if (error)
		return fail_tap(outcome, error, name);
	error = attach_tap(links, bridge, wish, index, outcome);
	if (!error && wish->port.named)
		error = leave_tap(outcome);
	else if (!error)
		/* Or the answer to the VM's first frame could be lost. */
		rtnl_wait_running(links, rtnl_link_get_ifindex(bridge));
	if (error) {
		/* Nobody else has an fd yet: closing ours removes the TAP. */
		fd_list_done(&outcome->fds);
		return error;
	}
	outcome->value = (uint32_t)index;
	return 0;
}

static int create_on_uplink(
	struct links *links, const struct tap_wish *wish, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *uplink = NULL;
	const struct macvtap_wish macvtap = {wish->network, wish->number, wish->queues, wish->mac};
	int error = uplink_find(links, wish->uplink, &uplink, outcome);

	if (error)
		return error;
	if (uplink_is_bridge(uplink))
		return create_port(links, uplink, wish, outcome);
	if (wish->port.named)
		return outcome_fail(outcome, -EOPNOTSUPP,
			"%s is no bridge: a VM gets a macvtap link on it, which has no TAP that a "
			"program could open by name",
			wish->uplink);
	return macvtap_create(links, uplink, &macvtap, outcome);
}

int links_create_tap(struct links *links, const struct tap_wish *wish, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *bridge = NULL;
	int error;

	if (*wish->uplink)
		return create_on_uplink(links, wish, outcome);
	error = rtnl_find_bridge(links, wish->network, &bridge);
	if (error)
		return outcome_fail(outcome, error, "network \"%s\" has no bridge", wish->network);
	return create_port(links, bridge, wish, outcome);
}

/* By its number, with its tag; the link is to be put. Says into outcome that there is none. */
static int find_tap(struct links *links, uint32_t number, struct rtnl_link **ret_link,
	struct link_tag *ret_tag, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	char name[IFNAMSIZ];
	int error;

	tap_interface_name(number, name);
	error = rtnl_find_link(links, name, &link);
	if (!error)
		error = rtnl_read_tag(links, link, LINK_KIND_TAP, ret_tag);
	if (error == -ENOENT)
		error = rtnl_read_tag(links, link, LINK_KIND_MACVTAP, ret_tag);
	if (error)
		return outcome_fail(outcome, error == -ENODEV ? -ENOENT : error,
			"there is no TAP %s of ours", name);
	*ret_link = take_ptr(link);
	return 0;
}

int links_get_tap(struct links *links, uint32_t number, struct tap_facts *ret_facts,
	struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	struct link_tag tag;
	int error = find_tap(links, number, &link, &tag, outcome);

	if (error)
		return error;
	*ret_facts = (struct tap_facts){
		.index = (uint32_t)rtnl_link_get_ifindex(link),
		.mtu = rtnl_link_get_mtu(link),
		.port = tag.port,
	};
	tap_interface_name(number, ret_facts->name);
	memcpy(ret_facts->network, tag.network, sizeof(ret_facts->network));
	return 0;
}

int links_delete_tap(struct links *links, uint32_t number, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	struct link_tag tag;
	int error = find_tap(links, number, &link, &tag, outcome);

	if (error)
		return error;
	error = rtnl_delete_link(links, rtnl_link_get_ifindex(link));
	if (error)
		return outcome_fail(outcome, error == -ENODEV ? -ENOENT : error, "deleting %s: %s",
			rtnl_link_get_name(link), strerror(-error));
	return links_keep_ports(links, outcome);
}
