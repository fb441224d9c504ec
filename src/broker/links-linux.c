/* Watching our links: their end, and what holders of a TAP's fd do to it. */
#include "broker/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* A burst of some thousand links; the kernel caps it at net.core.rmem_max. */
#define RECEIVE_BUFFER (1 << 20)

#define OWNER_NONE UINT32_MAX

/* A link of ours that is known to exist: its end will be told. */
struct known_link {
	int index;
	enum link_kind kind;
	uint32_t number; /* of a TAP or macvtap link */
	bool guarded;    /* there are rules for it alone */
	struct mac mac;  /* of a macvtap link */
	char network[NETWORK_NAME_SIZE];
};

struct link_watch {
	struct platform *platform;
	struct nl_sock *socket;
	sd_event_source *source;
	struct known_link *known;
	size_t known_count;
};

/* What a message says of one of our links. */
struct link_view {
	int index;
	struct link_tag tag;
	char name[IFNAMSIZ];
	struct mac mac;
	uint32_t mtu;
	int master; /* 0: none */
	bool persistent;
	uint32_t owner; /* of a TAP; OWNER_NONE: any local user could join it, with more queues */
	bool has_group;
};

static struct known_link *find_known(const struct link_watch *watch, int index)
{
	for (size_t i = 0; i < watch->known_count; i++)
		if (watch->known[i].index == index)
			return &watch->known[i];
	return NULL;
}

int link_watch_add(struct link_watch *watch, int index, enum link_kind kind, uint32_t number,
	const char *network, bool guarded)
{
	struct known_link *known = find_known(watch, index);

	if (!known) {
		known = reallocarray(watch->known, watch->known_count + 1, sizeof(*watch->known));
		if (!known)
			return -ENOMEM;
		watch->known = known;
		known += watch->known_count++;
	}
	*known = (struct known_link){
		.index = index, .kind = kind, .number = number, .guarded = guarded};
	if (kind == LINK_KIND_BRIDGE)
		(void)firewalld_add(watch->platform->firewalld, network);
	return text_copy(known->network, sizeof(known->network), network);
}

void link_watch_expect_mac(struct link_watch *watch, int index, struct mac mac)
{
	struct known_link *known = find_known(watch, index);

	if (known)
		known->mac = mac;
}

bool link_watch_find_interface(
	const struct link_watch *watch, int index, enum link_kind *ret_kind, uint32_t *ret_number)
{
	const struct known_link *known = find_known(watch, index);

	if (!known || known->kind == LINK_KIND_BRIDGE)
		return false;
	*ret_kind = known->kind;
	*ret_number = known->number;
	return true;
}

static void remove_known(struct link_watch *watch, struct known_link *known)
{
	*known = watch->known[--watch->known_count];
}

void link_watch_remove_network(struct link_watch *watch, const char *network)
{
	for (size_t i = 0; i < watch->known_count; i++) {
		struct known_link *known = &watch->known[i];

		if (known->kind != LINK_KIND_BRIDGE || strcmp(known->network, network) != 0)
			continue;
		remove_known(watch, known);
		firewalld_remove(watch->platform->firewalld, network);
		resolved_remove(watch->platform->resolved, network);
		return;
	}
}

/* The root of a user namespace has another number outside of it, and which of them is told depends
 * on who asked, or caused the event. */
static uint32_t read_owner(const struct link_watch *watch, uint32_t uid)
{
	return watch->platform->is_rootless && uid == geteuid() ? 0 : uid;
}

static void read_tun(
	const struct link_watch *watch, struct nlattr *link_info, struct link_view *view)
{
	struct nlattr *info[IFLA_INFO_MAX + 1];
	struct nlattr *tun[IFLA_TUN_MAX + 1];

	if (nla_parse_nested(info, IFLA_INFO_MAX, link_info, NULL) < 0 || !info[IFLA_INFO_DATA] ||
		nla_parse_nested(tun, IFLA_TUN_MAX, info[IFLA_INFO_DATA], NULL) < 0)
		return;
	view->persistent = tun[IFLA_TUN_PERSIST] && nla_get_u8(tun[IFLA_TUN_PERSIST]) != 0;
	if (tun[IFLA_TUN_OWNER])
		view->owner = read_owner(watch, nla_get_u32(tun[IFLA_TUN_OWNER]));
	view->has_group = tun[IFLA_TUN_GROUP];
}

static bool read_tag(
	const struct link_watch *watch, const struct nlattr *alias, struct link_tag *ret_tag)
{
	return alias && link_tag_from_text(nla_get_string(alias), ret_tag) == 0 &&
	       ret_tag->instance == watch->platform->instance;
}

/* False when the message is not of a link of ours. */
static bool read_link(
	const struct link_watch *watch, struct nlmsghdr *message, struct link_view *ret_view)
{
	const struct ifinfomsg *header = nlmsg_data(message);
	struct nlattr *attributes[IFLA_MAX + 1];
	struct link_view view = {.owner = OWNER_NONE};
	const struct nlattr *address;

	/* Another family is a bridge's word on its port, even where it says that a link ends. */
	if (nlmsg_parse(message, sizeof(*header), attributes, IFLA_MAX, NULL) < 0 ||
		header->ifi_family != AF_UNSPEC || !attributes[IFLA_IFNAME] ||
		!read_tag(watch, attributes[IFLA_IFALIAS], &view.tag))
		return false;
	view.index = header->ifi_index;
	nla_strlcpy(view.name, attributes[IFLA_IFNAME], sizeof(view.name));
	address = attributes[IFLA_ADDRESS];
	if (address && nla_len(address) == sizeof(view.mac))
		memcpy(&view.mac, nla_data(address), sizeof(view.mac));
	if (attributes[IFLA_MTU])
		view.mtu = nla_get_u32(attributes[IFLA_MTU]);
	if (attributes[IFLA_MASTER])
		view.master = (int)nla_get_u32(attributes[IFLA_MASTER]);
	if (attributes[IFLA_LINKINFO])
		read_tun(watch, attributes[IFLA_LINKINFO], &view);
	*ret_view = view;
	return true;
}

/* The number in a TAP's name; false when it has another name. */
static bool read_number(const char *name, uint32_t *ret_number)
{
	char expected[IFNAMSIZ];
	uint32_t number;

	if (sscanf(name, "vmtap%8x", &number) != 1)
		return false;
	tap_interface_name(number, expected);
	if (strcmp(name, expected) != 0)
		return false;
	*ret_number = number;
	return true;
}

/*
 * priv gives address and owner before the tag, so that no message with a tag shows a TAP half made
 * as far as these go. A named one is made persistent last; should its holder undo that, it ends
 * with his fd, as others do.
 */
static const char *judge(const struct link_view *view, uint32_t number)
{
	const struct link_port *port = &view->tag.port;
	struct mac mac = tap_mac(number);

	if (memcmp(&view->mac, &mac, sizeof(mac)) != 0)
		return "its holder changed its address";
	if (view->persistent && !port->named)
		return "its holder made it persistent";
	if (view->owner != (port->named ? port->owner : 0))
		return "its holder changed its owner";
	if (view->has_group)
		return "its holder gave it to a group";
	return NULL;
}

struct look {
	const struct link_watch *watch;
	struct link_view view;
	bool found;
};

static int take_look(struct nl_msg *message, void *context)
{
	struct look *look = context;

	look->found = read_link(look->watch, nlmsg_hdr(message), &look->view);
	return NL_OK;
}

/*
 * Whether a TAP is without a bridge now. The message that was read may be of the moment between its
 * tag and its bridge.
 */
static bool has_lost_master(const struct link_watch *watch, int index)
{
	struct look look = {.watch = watch};
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC, .ifi_index = index};

	return linux_get(watch->platform, RTM_GETLINK, &header, sizeof(header), take_look, &look) ==
		       0 &&
	       look.found && look.view.master == 0;
}

/* Its holder can give it the MAC of another machine on the LAN. */
static void check_macvtap(struct link_watch *watch, const struct link_view *view)
{
	const struct known_link *known = find_known(watch, view->index);
	struct platform *platform = watch->platform;

	if (known && known->kind == LINK_KIND_MACVTAP &&
		memcmp(&known->mac, &view->mac, sizeof(known->mac)) != 0)
		platform->events->interface_tampered(
			platform->context, known->number, "its holder changed its address");
}

static void check_tap(struct link_watch *watch, const struct link_view *view)
{
	struct platform *platform = watch->platform;
	const char *tampering;
	uint32_t number;

	if (view->tag.kind == LINK_KIND_MACVTAP)
		check_macvtap(watch, view);
	if (view->tag.kind != LINK_KIND_TAP || !read_number(view->name, &number))
		return;
	tampering = judge(view, number);
	if (!tampering && view->master == 0 && has_lost_master(watch, view->index))
		tampering = "it was taken off its bridge";
	if (tampering)
		platform->events->interface_tampered(platform->context, number, tampering);
}

static void tell_end(struct link_watch *watch, int index)
{
	struct platform *platform = watch->platform;
	struct known_link *known = find_known(watch, index);
	struct known_link ended;

	if (!known)
		return;
	ended = *known;
	remove_known(watch, known);
	if (ended.guarded)
		guard_watch_note_end(platform->guard);
	if (ended.kind != LINK_KIND_BRIDGE) {
		platform->events->interface_gone(platform->context, ended.number);
		return;
	}
	firewalld_remove(platform->firewalld, ended.network);
	resolved_remove(platform->resolved, ended.network);
	platform->events->network_gone(platform->context, ended.network);
}

static int take_event(struct nl_msg *message, void *context)
{
	struct nlmsghdr *header = nlmsg_hdr(message);
	const struct ifinfomsg *link = nlmsg_data(header);
	struct link_watch *watch = context;
	struct link_view view;

	if (header->nlmsg_type == RTM_DELLINK && link->ifi_family == AF_UNSPEC)
		tell_end(watch, link->ifi_index);
	else if (header->nlmsg_type == RTM_NEWLINK && read_link(watch, header, &view))
		check_tap(watch, &view);
	return NL_OK;
}

struct view_list {
	const struct link_watch *watch;
	struct link_view *views;
	size_t count;
	int error;
};

static int add_view(struct nl_msg *message, void *context)
{
	struct view_list *list = context;
	struct link_view view;
	struct link_view *grown;

	if (!read_link(list->watch, nlmsg_hdr(message), &view))
		return NL_OK;
	grown = reallocarray(list->views, list->count + 1, sizeof(*grown));
	if (!grown) {
		list->error = -ENOMEM;
		return NL_STOP;
	}
	list->views = grown;
	grown[list->count++] = view;
	return NL_OK;
}

/* Every link of ours; list->views is to be freed. */
static int list_views(const struct link_watch *watch, struct view_list *list)
{
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC};
	int error;

	*list = (struct view_list){.watch = watch};
	error = linux_dump(watch->platform, RTM_GETLINK, &header, sizeof(header), add_view, list);
	return error ? error : list->error;
}

static bool list_has(const struct view_list *list, int index)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->views[i].index == index)
			return true;
	return false;
}

/* Messages were lost: compares what is known with what is there. */
static void resynchronise(struct link_watch *watch)
{
	struct view_list list;
	size_t i = 0;

	if (list_views(watch, &list) == 0) {
		/* tell_end() takes the entry out, and a listener may take others. */
		while (i < watch->known_count) {
			int index = watch->known[i].index;

			if (list_has(&list, index)) {
				i++;
				continue;
			}
			tell_end(watch, index);
			i = 0;
		}
		for (i = 0; i < list.count; i++)
			check_tap(watch, &list.views[i]);
		/* A holder may have changed its TAP's address and changed it back. */
		watch->platform->events->guard_stale(
			watch->platform->context, "messages of the kernel were lost");
	}
	free(list.views);
}

static int handle_events(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct link_watch *watch = userdata;

	/* libnl's word for ENOBUFS. */
	if (nl_recvmsgs_default(watch->socket) == -NLE_NOMEM)
		resynchronise(watch);
	return 0;
}

struct address_look {
	int index;
	struct ipv4_subnet subnet;
	uint32_t host_offset;
};

static int take_address(struct nl_msg *message, void *context)
{
	const struct ifaddrmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[IFA_MAX + 1];
	struct address_look *look = context;
	struct ipv4_subnet subnet = {.prefix_length = header->ifa_prefixlen};

	if (header->ifa_family != AF_INET || (int)header->ifa_index != look->index ||
		nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, IFA_MAX, NULL) < 0 ||
		!attributes[IFA_LOCAL] || look->subnet.prefix_length)
		return NL_OK;
	subnet.address.s_addr =
		nla_get_u32(attributes[IFA_LOCAL]) & ipv4_subnet_mask(subnet).s_addr;
	look->subnet = subnet;
	look->host_offset =
		ntohl(nla_get_u32(attributes[IFA_LOCAL])) - ntohl(subnet.address.s_addr);
	return NL_OK;
}

struct ipv6_look {
	int index;
	bool found;
	struct in6_addr prefix;
};

/* Another program may have given the bridge other addresses. */
static int take_ipv6_address(struct nl_msg *message, void *context)
{
	const struct ifaddrmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[IFA_MAX + 1];
	struct ipv6_look *look = context;
	struct in6_addr address, gateway;

	if (header->ifa_family != AF_INET6 || (int)header->ifa_index != look->index ||
		header->ifa_prefixlen != IPV6_PREFIX_SIZE * 8 || look->found ||
		nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, IFA_MAX, NULL) < 0 ||
		!attributes[IFA_ADDRESS] || nla_len(attributes[IFA_ADDRESS]) != sizeof(address))
		return NL_OK;
	memcpy(&address, nla_data(attributes[IFA_ADDRESS]), sizeof(address));
	gateway = ipv6_prefix_gateway(address.s6_addr);
	if (!ipv6_prefix_is_local(address.s6_addr) ||
		memcmp(&address, &gateway, sizeof(address)) != 0)
		return NL_OK;
	memcpy(&look->prefix, &address, IPV6_PREFIX_SIZE);
	look->found = true;
	return NL_OK;
}

static void read_ipv6_address(
	struct platform *platform, int index, struct platform_network *network)
{
	struct ifaddrmsg header = {.ifa_family = AF_INET6};
	struct ipv6_look look = {.index = index};

	linux_dump(platform, RTM_GETADDR, &header, sizeof(header), take_ipv6_address, &look);
	network->has_ipv6 = look.found;
	network->ipv6_prefix = look.prefix;
}

/* Prefix length 0 when the bridge has no address. */
static void read_address(struct platform *platform, int index, struct platform_network *network)
{
	struct ifaddrmsg header = {.ifa_family = AF_INET};
	struct address_look look = {.index = index};

	linux_dump(platform, RTM_GETADDR, &header, sizeof(header), take_address, &look);
	network->subnet = look.subnet;
	network->gateway_offset = look.host_offset;
}

static int visit_bridge(struct link_watch *watch, const struct link_view *view,
	const struct platform_visitor *visitor, void *context)
{
	struct platform_network network = {
		.mode = view->tag.mode,
		.mtu = view->mtu,
	};
	int error =
		link_watch_add(watch, view->index, LINK_KIND_BRIDGE, 0, view->tag.network, false);

	read_address(watch->platform, view->index, &network);
	read_ipv6_address(watch->platform, view->index, &network);
	if (!error)
		error = text_copy(network.name, sizeof(network.name), view->tag.network);
	if (!error)
		error = text_copy(network.bridge, sizeof(network.bridge), view->name);
	if (!error)
		visitor->network(context, &network);
	return error;
}

static int visit_tap(struct link_watch *watch, const struct link_view *view,
	const struct platform_visitor *visitor, void *context)
{
	struct platform_interface interface = {
		.isolated = view->tag.port.isolated,
		.locked = view->tag.port.locked,
		.named = view->tag.port.named,
		.is_leased = view->tag.port.named,
	};
	int error;

	if (!read_number(view->name, &interface.number))
		return 0;
	interface.tampering = judge(view, interface.number);
	if (!interface.tampering && view->master == 0)
		interface.tampering = "it was taken off its bridge";
	error = link_watch_add(watch, view->index, LINK_KIND_TAP, interface.number,
		view->tag.network, view->tag.port.isolated || view->tag.port.locked);
	if (!error)
		error = text_copy(interface.network, sizeof(interface.network), view->tag.network);
	if (!error)
		visitor->interface(context, &interface);
	return error;
}

static int visit_macvtap(struct link_watch *watch, const struct link_view *view,
	const struct platform_visitor *visitor, void *context)
{
	struct platform_interface interface = {.is_leased = true, .mac = view->mac};
	int error;

	if (!read_number(view->name, &interface.number))
		return 0;
	error = link_watch_add(
		watch, view->index, LINK_KIND_MACVTAP, interface.number, view->tag.network, false);
	link_watch_expect_mac(watch, view->index, view->mac);
	if (!error)
		error = text_copy(interface.network, sizeof(interface.network), view->tag.network);
	if (!error)
		visitor->interface(context, &interface);
	return error;
}

int link_watch_visit(
	struct link_watch *watch, const struct platform_visitor *visitor, void *context)
{
	struct view_list list;
	int error = list_views(watch, &list);

	for (size_t i = 0; i < list.count && !error; i++)
		if (list.views[i].tag.kind == LINK_KIND_BRIDGE)
			error = visit_bridge(watch, &list.views[i], visitor, context);
	for (size_t i = 0; i < list.count && !error; i++)
		if (list.views[i].tag.kind == LINK_KIND_TAP)
			error = visit_tap(watch, &list.views[i], visitor, context);
	for (size_t i = 0; i < list.count && !error; i++)
		if (list.views[i].tag.kind == LINK_KIND_MACVTAP)
			error = visit_macvtap(watch, &list.views[i], visitor, context);
	free(list.views);
	return error;
}

void link_watch_free(struct link_watch *watch)
{
	if (!watch)
		return;
	sd_event_source_disable_unref(watch->source);
	nl_socket_free(watch->socket);
	free(watch->known);
	free(watch);
}
DEFINE_CLEANUP(struct link_watch, link_watch_free)

static int open_socket(struct link_watch *watch)
{
	int error = linux_open_routes(watch->platform, &watch->socket);

	if (error)
		return error;
	nl_socket_disable_seq_check(watch->socket);
	nl_socket_modify_cb(watch->socket, NL_CB_VALID, NL_CB_CUSTOM, take_event, watch);
	if (nl_socket_add_membership(watch->socket, RTNLGRP_LINK) < 0 ||
		nl_socket_set_nonblocking(watch->socket) < 0)
		return -EIO;
	/* A smaller one only means to resynchronise more often. */
	nl_socket_set_buffer_size(watch->socket, RECEIVE_BUFFER, 0);
	return 0;
}

int link_watch_new(struct platform *platform, struct link_watch **ret_watch)
{
	cleanup_with(link_watch_free) struct link_watch *watch = calloc(1, sizeof(*watch));
	int error;

	if (!watch)
		return -ENOMEM;
	watch->platform = platform;
	error = open_socket(watch);
	if (error)
		return error;
	error = sd_event_add_io(platform->event, &watch->source, nl_socket_get_fd(watch->socket),
		EPOLLIN, handle_events, watch);
	/* Before any request that follows: a VM that was restarted must not meet its own remains.
	 */
	if (error >= 0)
		error = sd_event_source_set_priority(watch->source, SD_EVENT_PRIORITY_IMPORTANT);
	if (error < 0)
		return error;
	*ret_watch = take_ptr(watch);
	return 0;
}
