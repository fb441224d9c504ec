/* Noticing that the NAT rules are not what they should be, that another firewall is about to be in
 * their way, and that the default route is another: nft events and routes. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/netconf.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/epoll.h>

/* Our own change is over in far less; a foreign one is repaired within a second. */
#define DEBOUNCE_MS 100
/* As priv knows it, too: where the accepts of others belong beside Docker. */
#define DOCKER_CHAIN "DOCKER-USER"
/* As priv has it, too: wider than any private range. */
#define WIDE_PREFIX_LENGTH 8

/*
 * Our own change of the rules deletes the table and adds it again, and both are reported to us in
 * this order; a foreign one leaves a deletion last. So what counts is the last word within a short
 * time, and our own repair can not cause another.
 */
struct nat_watch {
	struct platform *platform;
	char table[NAT_TABLE_SIZE];
	char forwards_table[FORWARDS_TABLE_SIZE];
	char accept_tag[32]; /* what the comment of each of our rules in chains of others has */
	bool damaged;
	bool forwards_damaged;
	bool firewall_changed;
	bool routes_changed;
	bool uses_changed;
	bool armed;
	struct platform_timer *timer;
	struct nft_events *events;
	/* Of the networks' namespace, and of the host's where that is another. */
	struct nl_sock *routes[2];
	sd_event_source *routes_sources[2];
};

static void arm(struct nat_watch *watch)
{
	if (!watch->armed)
		platform_timer_start(watch->timer, DEBOUNCE_MS);
	watch->armed = true;
}

static void take_damage(struct nat_watch *watch, bool *damaged)
{
	*damaged = true;
	arm(watch);
}

/* Whether a text is anywhere in it: a comment, a name, or the chain a rule jumps to. */
static bool mentions(const struct nlmsghdr *message, const char *text)
{
	return memmem(message, message->nlmsg_len, text, strlen(text)) != NULL;
}

/*
 * What others do with their own rules is no business of ours, but for chains that may drop, and for
 * our accepts in them. Our own repair is told of too, and asked about once more: that finds nothing
 * to do.
 */
static void take_foreign_message(
	struct nat_watch *watch, const struct nlmsghdr *message, struct nlattr *const attributes[])
{
	int type = NFNL_MSG_TYPE(message->nlmsg_type);

	/* Published ports have a table of ours, too. */
	if (strncmp(nla_get_string(attributes[NFTA_TABLE_NAME]), "vmnet_", strlen("vmnet_")) == 0)
		return;
	if (type == NFT_MSG_DELRULE && mentions(message, watch->accept_tag))
		watch->firewall_changed = true;
	/* Docker makes its chain for others first, and lets it count later. */
	if ((type == NFT_MSG_NEWRULE || type == NFT_MSG_DELRULE) && mentions(message, DOCKER_CHAIN))
		watch->firewall_changed = true;
	if (type == NFT_MSG_NEWCHAIN &&
		(attributes[NFTA_CHAIN_HOOK] || mentions(message, DOCKER_CHAIN)))
		watch->firewall_changed = true;
	if (watch->firewall_changed)
		arm(watch);
}

/* In one of our own tables. */
static void take_own_message(struct nat_watch *watch, const struct nlmsghdr *message, bool *damaged)
{
	if (NFNL_MSG_TYPE(message->nlmsg_type) == NFT_MSG_NEWTABLE)
		*damaged = false;
	else if (nft_event_removes(message))
		take_damage(watch, damaged);
}

static void take_event(void *context, struct nlmsghdr *message)
{
	struct nlattr *attributes[NFTA_CHAIN_MAX + 1];
	struct nat_watch *watch = context;
	const char *table;

	if (!message) {
		take_damage(watch, &watch->damaged);
		take_damage(watch, &watch->forwards_damaged);
		return;
	}
	/* The table's name is the first attribute of everything in it, too. */
	if (nlmsg_parse(message, sizeof(struct nfgenmsg), attributes, NFTA_CHAIN_MAX, NULL) < 0 ||
		!attributes[NFTA_TABLE_NAME])
		return;
	/* What passes between VMs is not on its way to the world. */
	if (((const struct nfgenmsg *)nlmsg_data(message))->nfgen_family == NFPROTO_BRIDGE)
		return;
	table = nla_get_string(attributes[NFTA_TABLE_NAME]);
	if (strcmp(table, watch->table) == 0)
		take_own_message(watch, message, &watch->damaged);
	else if (strcmp(table, watch->forwards_table) == 0)
		take_own_message(watch, message, &watch->forwards_damaged);
	else
		take_foreign_message(watch, message, attributes);
}

static void handle_timer(void *context)
{
	struct nat_watch *watch = context;
	struct platform *platform = watch->platform;
	bool uses_changed, damaged, firewall_changed, routes_changed, forwards_damaged;

	nft_events_read_queued(watch->events);
	uses_changed = watch->uses_changed;
	damaged = watch->damaged;
	firewall_changed = watch->firewall_changed;
	routes_changed = watch->routes_changed;
	forwards_damaged = watch->forwards_damaged;
	watch->armed = false;
	watch->damaged = false;
	watch->forwards_damaged = false;
	watch->firewall_changed = false;
	watch->routes_changed = false;
	watch->uses_changed = false;
	if (damaged)
		platform->events->nat_stale(platform->context, "somebody removed them");
	else if (firewall_changed)
		platform->events->nat_stale(platform->context, "the host's firewall changed");
	else if (routes_changed)
		platform->events->nat_stale(platform->context, "routes or forwarding changed");
	/* They may use another way out, too. */
	if (forwards_damaged || routes_changed)
		platform->events->forwards_stale(
			platform->context, forwards_damaged ? "somebody removed them"
							    : "routes or forwarding changed");
	if (uses_changed)
		platform->events->uses_changed(platform->context);
}

/* Whoever sets net.ipv4.ip_forward to 0 turns forwarding off on every interface. */
static int take_switch(struct nl_msg *message, struct nat_watch *watch)
{
	struct nlattr *attributes[NETCONFA_MAX + 1];

	if (nlmsg_parse(nlmsg_hdr(message), sizeof(struct netconfmsg), attributes, NETCONFA_MAX,
		    NULL) < 0 ||
		!attributes[NETCONFA_IFINDEX] || !attributes[NETCONFA_FORWARDING] ||
		/* Each new interface says the same of itself. */
		(int)nla_get_u32(attributes[NETCONFA_IFINDEX]) != NETCONFA_IFINDEX_ALL ||
		nla_get_u32(attributes[NETCONFA_FORWARDING]) != 0)
		return NL_OK;
	watch->routes_changed = true;
	arm(watch);
	return NL_OK;
}

/*
 * The way out is another: replies come in by a link whose forwarding may be off. VPNs add halves of
 * a default route, or one in a table of their own.
 */
static int take_route(struct nl_msg *message, void *context)
{
	const struct rtmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nat_watch *watch = context;

	if (nlmsg_hdr(message)->nlmsg_type == RTM_NEWNETCONF)
		return take_switch(message, watch);
	if (nlmsg_hdr(message)->nlmsg_type == RTM_NEWADDR) {
		watch->uses_changed = true;
		arm(watch);
		return NL_OK;
	}
	/* The local table repeats the addresses. */
	if (header->rtm_table == RT_TABLE_LOCAL || header->rtm_type != RTN_UNICAST)
		return NL_OK;
	if (header->rtm_dst_len < WIDE_PREFIX_LENGTH)
		watch->routes_changed = true;
	else if (header->rtm_family == AF_INET)
		watch->uses_changed = true;
	arm(watch);
	return NL_OK;
}

static int handle_routes(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct nat_watch *watch = userdata;
	bool is_host = source == watch->routes_sources[1];

	if (nl_recvmsgs_default(watch->routes[is_host]) < 0) {
		watch->routes_changed = true;
		watch->uses_changed = true;
		arm(watch);
	}
	return 0;
}

static int watch_routes(struct nat_watch *watch, bool is_host)
{
	struct nl_sock *socket;
	int error = linux_open_routes(is_host ? NULL : watch->platform, &socket);

	if (error)
		return error;
	watch->routes[is_host] = socket;
	nl_socket_disable_seq_check(socket);
	nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, take_route, watch);
	if (nl_socket_add_membership(socket, RTNLGRP_IPV4_ROUTE) < 0 ||
		nl_socket_add_membership(socket, RTNLGRP_IPV6_ROUTE) < 0 ||
		nl_socket_add_membership(socket, RTNLGRP_IPV4_IFADDR) < 0 ||
		nl_socket_add_membership(socket, RTNLGRP_IPV4_NETCONF) < 0 ||
		nl_socket_set_nonblocking(socket) < 0)
		return -EIO;
	error = sd_event_add_io(watch->platform->event, &watch->routes_sources[is_host],
		nl_socket_get_fd(socket), EPOLLIN, handle_routes, watch);
	return error < 0 ? error : 0;
}

void nat_watch_free(struct nat_watch *watch)
{
	if (!watch)
		return;
	platform_timer_free(watch->timer);
	for (size_t i = 0; i < array_length(watch->routes); i++) {
		sd_event_source_disable_unref(watch->routes_sources[i]);
		nl_socket_free(watch->routes[i]);
	}
	nft_events_free(watch->events);
	free(watch);
}
DEFINE_CLEANUP(struct nat_watch, nat_watch_free)

int nat_watch_new(struct platform *platform, struct nat_watch **ret_watch)
{
	cleanup_with(nat_watch_free) struct nat_watch *watch = calloc(1, sizeof(*watch));
	int error;

	if (!watch)
		return -ENOMEM;
	watch->platform = platform;
	nat_table_name(platform->instance, watch->table);
	forwards_table_name(platform->instance, watch->forwards_table);
	snprintf(watch->accept_tag, sizeof(watch->accept_tag), "vmnet/1/%08x ", platform->instance);
	error = platform_timer_new(platform, handle_timer, watch, &watch->timer);
	if (!error)
		error = nft_events_new(platform, take_event, watch, &watch->events);
	if (!error)
		error = watch_routes(watch, false);
	if (!error && platform->is_rootless)
		error = watch_routes(watch, true);
	if (error)
		return error;
	*ret_watch = take_ptr(watch);
	return 0;
}
