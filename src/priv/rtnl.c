#include "priv/rtnl.h"

#include <errno.h>
#include <linux/if_link.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <poll.h>

#define RUNNING_TRIES   200
#define RUNNING_POLL_MS 1

/* The kernel's codes come back from libnl as its own, several to one; these are the ones we decide
 * on. */
int rtnl_error_to_errno(int error)
{
	switch (-error) {
	case 0:
		return 0;
	case NLE_EXIST:
		return -EEXIST;
	case NLE_NODEV:
	case NLE_OBJ_NOTFOUND:
	case NLE_NOADDR:
		return -ENODEV;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_BUSY:
		return -EBUSY;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_OPNOTSUPP:
		return -EOPNOTSUPP;
	case NLE_INVAL:
	case NLE_RANGE:
		return -EINVAL;
	default:
		return -EIO;
	}
}

int rtnl_find_link(struct links *links, const char *name, struct rtnl_link **ret_link)
{
	return rtnl_error_to_errno(rtnl_link_get_kernel(links->socket, 0, name, ret_link));
}

int rtnl_read_tag(
	struct links *links, struct rtnl_link *link, enum link_kind kind, struct link_tag *ret_tag)
{
	const char *alias = rtnl_link_get_ifalias(link);
	struct link_tag tag;

	if (!alias || link_tag_from_text(alias, &tag) < 0 || tag.instance != links->instance ||
		tag.kind != kind)
		return -ENOENT;
	*ret_tag = tag;
	return 0;
}

int rtnl_request(struct links *links, struct nl_msg *message)
{
	return rtnl_error_to_errno(nl_send_sync(links->socket, message));
}

struct nl_msg *rtnl_new_link_message(int type, int family, int index)
{
	struct ifinfomsg header = {.ifi_family = (unsigned char)family, .ifi_index = index};
	struct nl_msg *message = nlmsg_alloc_simple(type, 0);

	if (message && nlmsg_append(message, &header, sizeof(header), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

static int set_altname(struct links *links, int index, const char *altname)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		rtnl_new_link_message(RTM_NEWLINKPROP, AF_UNSPEC, index);
	struct nlattr *list;

	if (!message)
		return -ENOMEM;
	nlmsg_hdr(message)->nlmsg_flags |= NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND;
	list = nla_nest_start(message, IFLA_PROP_LIST);
	if (!list || nla_put_string(message, IFLA_ALT_IFNAME, altname) < 0)
		return -EMSGSIZE;
	nla_nest_end(message, list);
	return rtnl_request(links, take_ptr(message));
}

int rtnl_tag_link(struct links *links, int index, const struct link_tag *tag, const char *altname,
	uint32_t mtu)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		rtnl_new_link_message(RTM_SETLINK, AF_UNSPEC, index);
	char alias[LINK_TAG_SIZE];
	int error;

	if (!message)
		return -ENOMEM;
	link_tag_to_text(tag, alias);
	if (nla_put_string(message, IFLA_IFALIAS, alias) < 0 ||
		nla_put_u32(message, IFLA_MTU, mtu) < 0)
		return -EMSGSIZE;
	error = rtnl_request(links, take_ptr(message));
	if (error)
		return error;
	error = set_altname(links, index, altname);
	/* It is for people's eyes only; another instance may have the same one. */
	return error == -EEXIST || error == -EOPNOTSUPP ? 0 : error;
}

static int change_link(struct links *links, int index, unsigned int flags, int master)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		rtnl_new_link_message(RTM_SETLINK, AF_UNSPEC, index);
	struct ifinfomsg *header;

	if (!message)
		return -ENOMEM;
	header = nlmsg_data(nlmsg_hdr(message));
	header->ifi_flags = header->ifi_change = flags;
	if (master && nla_put_u32(message, IFLA_MASTER, (uint32_t)master) < 0)
		return -EMSGSIZE;
	return rtnl_request(links, take_ptr(message));
}

int rtnl_enslave_link(struct links *links, int index, int master)
{
	return change_link(links, index, 0, master);
}

int rtnl_start_link(struct links *links, int index, int master)
{
	return change_link(links, index, IFF_UP, master);
}

void rtnl_wait_running(struct links *links, int index)
{
	for (int tries = 0; tries < RUNNING_TRIES; tries++) {
		cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
		unsigned int flags;

		if (rtnl_link_get_kernel(links->socket, index, NULL, &link) < 0)
			return;
		flags = rtnl_link_get_flags(link);
		if (!(flags & IFF_UP) || (flags & IFF_RUNNING))
			return;
		(void)poll(NULL, 0, RUNNING_POLL_MS);
	}
}

int rtnl_delete_link(struct links *links, int index)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		rtnl_new_link_message(RTM_DELLINK, AF_UNSPEC, index);

	return message ? rtnl_request(links, take_ptr(message)) : -ENOMEM;
}

/* 0 for a TAP without multi-queue, which has no such attribute. */
static int take_queue_count(struct nl_msg *message, void *context)
{
	uint32_t *count = context;
	struct nlattr *link =
		nlmsg_find_attr(nlmsg_hdr(message), sizeof(struct ifinfomsg), IFLA_LINKINFO);
	struct nlattr *info[IFLA_INFO_MAX + 1];
	struct nlattr *tun[IFLA_TUN_MAX + 1];

	if (!link || nla_parse_nested(info, IFLA_INFO_MAX, link, NULL) < 0 ||
		!info[IFLA_INFO_DATA] ||
		nla_parse_nested(tun, IFLA_TUN_MAX, info[IFLA_INFO_DATA], NULL) < 0)
		return NL_OK;
	if (tun[IFLA_TUN_NUM_QUEUES])
		*count += nla_get_u32(tun[IFLA_TUN_NUM_QUEUES]);
	if (tun[IFLA_TUN_NUM_DISABLED_QUEUES])
		*count += nla_get_u32(tun[IFLA_TUN_NUM_DISABLED_QUEUES]);
	return NL_OK;
}

int rtnl_count_tap_queues(int index, uint32_t *ret_count)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = nl_socket_alloc();
	cleanup_with(nlmsg_free) struct nl_msg *message =
		rtnl_new_link_message(RTM_GETLINK, AF_UNSPEC, index);
	uint32_t count = 0;
	int error;

	if (!socket || !message)
		return -ENOMEM;
	error = nl_connect(socket, NETLINK_ROUTE);
	if (!error)
		error = nl_socket_modify_cb(
			socket, NL_CB_VALID, NL_CB_CUSTOM, take_queue_count, &count);
	/* One answer and no acknowledgement behind it. */
	nl_socket_disable_auto_ack(socket);
	if (!error)
		error = nl_send_auto(socket, message);
	if (error >= 0)
		error = nl_recvmsgs_default(socket);
	if (error < 0)
		return rtnl_error_to_errno(error);
	*ret_count = count;
	return 0;
}
