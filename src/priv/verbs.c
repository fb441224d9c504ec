#include "priv/dispatch.h"

#include "base/linger.h"
#include "priv/foreign.h"
#include "priv/forwards.h"
#include "priv/guard.h"
#include "priv/nat.h"
#include "priv/pool.h"
#include "priv/sockets.h"
#include "priv/uplink-queue.h"
#include "priv/vhost.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

struct verb_call {
	struct priv_context *context;
	const struct verb_request *request;
	const struct fd_list *fds;
	struct verb_outcome *outcome;
};

struct verb_entry {
	const char *name;
	size_t fds_min, fds_max;
	int (*run)(const struct verb_call *call);
};

static int check_network(const struct verb_call *call, const char network[NETWORK_NAME_SIZE])
{
	if (!memchr(network, '\0', NETWORK_NAME_SIZE) || !network_name_is_valid(network))
		return outcome_fail(call->outcome, -EINVAL, "not a network's name");
	return 0;
}

static int check_mtu(const struct verb_call *call, uint32_t mtu)
{
	if (mtu < VERB_MTU_MIN || mtu > VERB_MTU_MAX)
		return outcome_fail(call->outcome, -EINVAL, "MTU %u: %d to %d are possible", mtu,
			VERB_MTU_MIN, VERB_MTU_MAX);
	return 0;
}

static int check_subnet(const struct verb_call *call, struct ipv4_subnet subnet)
{
	if (subnet.prefix_length < 8 || subnet.prefix_length > 30)
		return outcome_fail(call->outcome, -EINVAL,
			"prefix length %u: 8 to 30 are possible", subnet.prefix_length);
	if (subnet.address.s_addr & ~ipv4_subnet_mask(subnet).s_addr)
		return outcome_fail(call->outcome, -EINVAL, "a subnet's address has host bits");
	if (!ipv4_subnet_is_private(subnet))
		return outcome_fail(call->outcome, -EINVAL,
			"a subnet must be in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
	return 0;
}

static int check_ipv6(const struct verb_call *call, const struct bridge_wish *wish)
{
	if (wish->has_ipv6 && !ipv6_prefix_is_local(wish->ipv6_prefix))
		return outcome_fail(call->outcome, -EINVAL, "an IPv6 prefix must be in fd00::/8");
	return 0;
}

/* A bridge of ours never has a port without them. */
static int guard_bridge(const struct verb_call *call, const char *network)
{
	struct links *links = call->context->links;
	cleanup_outcome struct verb_outcome ignored;
	struct bridge_facts facts;
	int error;

	outcome_init(&ignored);
	error = links_get_bridge(links, network, &facts, call->outcome);
	if (!error)
		error = guard_add_bridge(links, &facts, call->outcome);
	if (!error)
		return 0;
	links_delete_bridge(links, network, &ignored);
	return error;
}

/* It becomes a part of nft rules. */
static int check_uplink(const struct verb_call *call, const struct verb_create_bridge *wanted)
{
	if (!memchr(wanted->uplink, 0, sizeof(wanted->uplink)))
		return outcome_fail(call->outcome, -EINVAL, "the uplink's name does not end");
	if (*wanted->uplink && !uplink_name_is_valid(wanted->uplink))
		return outcome_fail(call->outcome, -EINVAL, "no name for an uplink");
	if (*wanted->uplink && wanted->mode != NETWORK_MODE_SHARED)
		return outcome_fail(call->outcome, -EINVAL, "a mode without uplink");
	return 0;
}

static int run_create_bridge(const struct verb_call *call)
{
	const struct verb_create_bridge *wanted = &call->request->create_bridge;
	struct bridge_wish wish = {
		.network = wanted->network,
		.mode = (enum network_mode)wanted->mode,
		.subnet = {{wanted->subnet_address}, wanted->prefix_length},
		.gateway_offset = wanted->gateway_offset ? wanted->gateway_offset : 1,
		.has_ipv6 = wanted->has_ipv6 != 0,
		.mtu = wanted->mtu,
		.uplink = wanted->uplink,
	};
	int error = check_network(call, wanted->network);

	memcpy(wish.ipv6_prefix, wanted->ipv6_prefix, sizeof(wish.ipv6_prefix));
	if (!error && wanted->mode >= NETWORK_MODE_BRIDGED)
		error = outcome_fail(call->outcome, -EINVAL, "no such mode: %u", wanted->mode);
	if (!error)
		error = check_subnet(call, wish.subnet);
	if (!error && !address_offsets_are_valid(wish.subnet, wish.gateway_offset, 0))
		error = outcome_fail(call->outcome, -EINVAL, "no room behind the gateway");
	if (!error)
		error = check_mtu(call, wish.mtu);
	if (!error)
		error = check_ipv6(call, &wish);
	if (!error)
		error = check_uplink(call, wanted);
	if (!error)
		error = links_create_bridge(call->context->links, &wish, call->outcome);
	return error ? error : guard_bridge(call, wanted->network);
}

static int run_delete_bridge(const struct verb_call *call)
{
	const char *network = call->request->network.network;
	int error = check_network(call, network);

	if (!error)
		error = links_check_bridge_unused(call->context->links, network, call->outcome);
	if (error)
		return error;
	error = dnsmasq_stop(call->context->dnsmasq, network, call->outcome);
	if (error && error != -ESRCH)
		return error;
	error = links_delete_bridge(call->context->links, network, call->outcome);
	/* Rules that stay match nothing, and go with the next change. */
	if (!error)
		guard_apply(call->context->links, call->outcome);
	return error;
}

static int check_lock(const struct verb_call *call, const struct tap_wish *wish)
{
	struct bridge_facts facts;
	uint32_t offset;
	int error;

	if (!mac_is_unicast(wish->port.mac) || mac_is_reserved(wish->port.mac))
		return outcome_fail(call->outcome, -EINVAL, "no VM may have that MAC");
	error = links_get_bridge(call->context->links, wish->network, &facts, call->outcome);
	if (error)
		return error;
	offset = ntohl(wish->port.address.s_addr) - ntohl(facts.subnet.address.s_addr);
	if (!ipv4_subnet_contains(facts.subnet, wish->port.address) || offset == 0 ||
		offset == facts.gateway_offset || offset == ipv4_subnet_size(facts.subnet) - 1)
		return outcome_fail(call->outcome, -EINVAL, "no VM may have that address");
	return 0;
}

/* A second queue would be any program's of that user to join; uid -1 would leave it without an
 * owner, and so to everybody. */
static int check_named(const struct verb_call *call, const struct tap_wish *wish)
{
	if (wish->queues != 1)
		return outcome_fail(
			call->outcome, -EINVAL, "a TAP to be opened by name has 1 queue");
	if (wish->port.owner > LINK_OWNER_MAX)
		return outcome_fail(call->outcome, -EINVAL, "not a user's number");
	return 0;
}

static int run_create_tap(const struct verb_call *call)
{
	const struct verb_create_tap *wanted = &call->request->create_tap;
	struct tap_wish wish = {
		.network = wanted->network,
		.uplink = wanted->uplink,
		.number = wanted->number,
		.queues = wanted->queues,
		.port.isolated = wanted->port & VERB_PORT_ISOLATED,
		.port.locked = wanted->port & VERB_PORT_LOCKED,
		.port.named = wanted->port & VERB_PORT_NAMED,
	};
	int error = check_network(call, wanted->network);

	memcpy(wish.mac.bytes, wanted->mac, MAC_SIZE);
	if (!error && (wanted->queues < 1 || wanted->queues > VERB_QUEUES_MAX))
		error = outcome_fail(call->outcome, -EINVAL, "%u queues: 1 to %d are possible",
			wanted->queues, VERB_QUEUES_MAX);
	if (!error && (wanted->port & ~(uint32_t)VERB_PORT_ALL))
		error = outcome_fail(
			call->outcome, -EINVAL, "no such kind of port: %#x", wanted->port);
	if (!error && wish.port.locked) {
		memcpy(wish.port.mac.bytes, wanted->mac, sizeof(wish.port.mac.bytes));
		wish.port.address.s_addr = wanted->address;
		error = check_lock(call, &wish);
	}
	if (!error && wish.port.named) {
		wish.port.owner = wanted->owner;
		error = check_named(call, &wish);
	}
	if (!error && !memchr(wanted->uplink, '\0', IFNAMSIZ))
		error = outcome_fail(call->outcome, -EINVAL, "not an interface's name");
	if (!error && *wanted->uplink && !mac_is_unicast(wish.mac))
		error = outcome_fail(call->outcome, -EINVAL, "not a VM's MAC");
	return error ? error : links_create_tap(call->context->links, &wish, call->outcome);
}

static int run_delete_tap(const struct verb_call *call)
{
	return links_delete_tap(
		call->context->links, call->request->delete_tap.number, call->outcome);
}

static int run_apply_nat(const struct verb_call *call)
{
	int error = nat_apply(call->context->links, call->context->is_rootless, call->outcome);

	if (!error && call->context->is_rootless)
		error = uplink_queues_apply(call->context->links, call->outcome);
	return error;
}

static int check_service(const struct verb_call *call, const struct verb_start_dnsmasq *wanted)
{
	if (wanted->services & ~(uint32_t)VERB_SERVICE_ALL)
		return outcome_fail(
			call->outcome, -EINVAL, "no such services: %#x", wanted->services);
	if (wanted->lease_s < VERB_LEASE_MIN_S || wanted->lease_s > VERB_LEASE_MAX_S)
		return outcome_fail(call->outcome, -EINVAL,
			"a lease of %u s: %d to %d are possible", wanted->lease_s, VERB_LEASE_MIN_S,
			VERB_LEASE_MAX_S);
	if (!memchr(wanted->domain, '\0', NETWORK_DOMAIN_SIZE) ||
		(*wanted->domain && !domain_is_valid(wanted->domain)))
		return outcome_fail(call->outcome, -EINVAL, "not a domain's name");
	return 0;
}

static int run_start_dnsmasq(const struct verb_call *call)
{
	const struct verb_start_dnsmasq *wanted = &call->request->start_dnsmasq;
	struct bridge_facts facts;
	int error = check_network(call, wanted->network);

	if (!error)
		error = check_service(call, wanted);
	if (!error)
		error = links_get_bridge(
			call->context->links, wanted->network, &facts, call->outcome);
	if (!error &&
		!address_offsets_are_valid(facts.subnet, facts.gateway_offset, wanted->last_offset))
		error = outcome_fail(call->outcome, -EINVAL, "no addresses for VMs");
	return error ? error : dnsmasq_start(call->context->dnsmasq, &facts, wanted, call->outcome);
}

static int run_stop_dnsmasq(const struct verb_call *call)
{
	const char *network = call->request->network.network;
	int error = check_network(call, network);

	return error ? error : dnsmasq_stop(call->context->dnsmasq, network, call->outcome);
}

static int run_force_buffers(const struct verb_call *call)
{
	return sockets_force_buffers(call->fds->fds, call->fds->count,
		call->request->force_buffers.bytes, call->outcome);
}

static int run_open_nft_events(const struct verb_call *call)
{
	return sockets_open_nft_events(call->outcome);
}

static int run_open_route_socket(const struct verb_call *call)
{
	return sockets_open_route(call->outcome);
}

static int run_settle(const struct verb_call *call)
{
	return 0;
}

static int run_open_vhost(const struct verb_call *call)
{
	uint32_t count = call->request->open_vhost.count;

	if (count < 1 || count > VERB_QUEUES_MAX)
		return outcome_fail(call->outcome, -EINVAL,
			"%u times /dev/vhost-net: 1 to %d are possible", count, VERB_QUEUES_MAX);
	return vhost_open(count, call->outcome);
}

static int run_report_firewalls(const struct verb_call *call)
{
	return foreign_report(call->context->links, call->outcome);
}

static int run_apply_forwards(const struct verb_call *call)
{
	const struct verb_apply_forwards *wanted = &call->request->apply_forwards;

	if (wanted->count > VERB_FORWARDS_MAX)
		return outcome_fail(call->outcome, -EINVAL, "%u forwards: 0 to %d are possible",
			wanted->count, VERB_FORWARDS_MAX);
	return forwards_apply(call->context->links, call->fds->fds[0], wanted, call->outcome);
}

static int run_apply_guard(const struct verb_call *call)
{
	int error = guard_apply(call->context->links, call->outcome);

	return error ? error : links_keep_ports(call->context->links, call->outcome);
}

static int run_get_instance(const struct verb_call *call)
{
	call->outcome->value = call->context->instance;
	return 0;
}

/* Without a bridge it is of mode bridged, or not there: then no interface carries its tag. */
static int find_end(
	const struct verb_call *call, const struct verb_start_capture *wanted, uint32_t *ret_bridge)
{
	struct bridge_facts facts = {.index = 0};
	int error = 0;

	if (wanted->end == VERB_CAPTURE_UNTIL_NETWORK)
		error = links_get_bridge(
			call->context->links, wanted->network, &facts, call->outcome);
	*ret_bridge = facts.index;
	return error;
}

static int run_start_capture(const struct verb_call *call)
{
	const struct verb_start_capture *wanted = &call->request->start_capture;
	uint32_t bridge;
	int error = check_network(call, wanted->network);

	if (!error && wanted->end >= VERB_CAPTURE_END_COUNT)
		error = outcome_fail(
			call->outcome, -EINVAL, "no such end of a capture: %u", wanted->end);
	if (!error && (wanted->snaplen < VERB_SNAPLEN_MIN || wanted->snaplen > VERB_SNAPLEN_MAX))
		error = outcome_fail(call->outcome, -EINVAL,
			"%u bytes of a packet: %d to %d are possible", wanted->snaplen,
			VERB_SNAPLEN_MIN, VERB_SNAPLEN_MAX);
	if (!error)
		error = find_end(call, wanted, &bridge);
	return error ? error
		     : captures_start(call->context->captures, wanted, bridge, call->outcome);
}

static int check_comment(const struct verb_call *call, const char comment[VERB_CAPTURE_COMMENT])
{
	size_t length = strnlen(comment, VERB_CAPTURE_COMMENT);

	for (size_t i = 0; i < length; i++)
		if (comment[i] < ' ' || comment[i] > '~')
			return outcome_fail(call->outcome, -EINVAL, "a comment is printable ASCII");
	if (length == VERB_CAPTURE_COMMENT)
		return outcome_fail(call->outcome, -EINVAL, "the comment does not end");
	return 0;
}

static int run_capture_interface(const struct verb_call *call)
{
	const struct verb_capture_interface *wanted = &call->request->capture_interface;
	struct tap_facts facts;
	int error = check_comment(call, wanted->comment);

	if (!error)
		error = links_get_tap(call->context->links, wanted->number, &facts, call->outcome);
	return error ? error : captures_add(call->context->captures, wanted, &facts, call->outcome);
}

static int run_end_capture(const struct verb_call *call)
{
	return captures_end(
		call->context->captures, call->request->end_capture.capture, call->outcome);
}

static const struct verb_entry verbs[] = {
	[VERB_CREATE_BRIDGE] = {"create-bridge", 0, 0, run_create_bridge},
	[VERB_DELETE_BRIDGE] = {"delete-bridge", 0, 0, run_delete_bridge},
	[VERB_CREATE_TAP] = {"create-tap", 0, 0, run_create_tap},
	[VERB_DELETE_TAP] = {"delete-tap", 0, 0, run_delete_tap},
	[VERB_APPLY_NAT] = {"apply-nat", 0, 0, run_apply_nat},
	[VERB_START_DNSMASQ] = {"start-dnsmasq", 0, 0, run_start_dnsmasq},
	[VERB_STOP_DNSMASQ] = {"stop-dnsmasq", 0, 0, run_stop_dnsmasq},
	[VERB_FORCE_BUFFERS] = {"force-buffers", 1, VERB_SOCKETS_MAX, run_force_buffers},
	[VERB_OPEN_NFT_EVENTS] = {"open-nft-events", 0, 0, run_open_nft_events},
	[VERB_SETTLE] = {"settle", 0, 0, run_settle},
	[VERB_OPEN_VHOST] = {"open-vhost", 0, 0, run_open_vhost},
	[VERB_REPORT_FIREWALLS] = {"report-firewalls", 0, 0, run_report_firewalls},
	[VERB_APPLY_FORWARDS] = {"apply-forwards", 1, 1, run_apply_forwards},
	[VERB_APPLY_GUARD] = {"apply-guard", 0, 0, run_apply_guard},
	[VERB_GET_INSTANCE] = {"get-instance", 0, 0, run_get_instance},
	[VERB_START_CAPTURE] = {"start-capture", 0, 0, run_start_capture},
	[VERB_CAPTURE_INTERFACE] = {"capture-interface", 0, 0, run_capture_interface},
	[VERB_END_CAPTURE] = {"end-capture", 0, 0, run_end_capture},
	[VERB_OPEN_ROUTE_SOCKET] = {"open-route-socket", 0, 0, run_open_route_socket},
};
static_assert(array_length(verbs) == VERB_COUNT, "every verb is served");
static_assert(VERB_QUEUES_MAX <= FD_PASS_MAX, "a TAP's queues fit into one reply");

const char *verb_to_text(uint32_t verb)
{
	return verb < VERB_COUNT ? verbs[verb].name : "unknown";
}

static int run_request(const struct verb_call *call)
{
	const struct verb_entry *entry;

	if (call->request->verb >= VERB_COUNT)
		return outcome_fail(
			call->outcome, -EOPNOTSUPP, "no such verb: %u", call->request->verb);
	entry = &verbs[call->request->verb];
	if (call->fds->count < entry->fds_min || call->fds->count > entry->fds_max)
		return outcome_fail(call->outcome, -EINVAL, "%s takes %zu to %zu fds, not %zu",
			entry->name, entry->fds_min, entry->fds_max, call->fds->count);
	return entry->run(call);
}

static int check_form(
	const void *bytes, size_t size, struct verb_request *request, struct verb_outcome *outcome)
{
	if (size != sizeof(*request))
		return outcome_fail(outcome, -EBADMSG, "a request has %zu bytes, not %zu",
			sizeof(*request), size);
	memcpy(request, bytes, size);
	if (request->magic != VERB_MAGIC)
		return outcome_fail(outcome, -EBADMSG, "a request begins with another number");
	return 0;
}

int verbs_answer(struct priv_context *context, const void *bytes, size_t size,
	struct fd_list *request_fds, struct verb_reply *reply, struct verb_outcome *ret_outcome)
{
	struct verb_request request = {.verb = VERB_COUNT};
	struct verb_call call = {context, &request, request_fds, ret_outcome};
	int result = check_form(bytes, size, &request, ret_outcome);

	if (!result)
		result = run_request(&call);
	linger_limit();
	fd_list_done(request_fds);
	linger_unlimit();
	if (result < 0)
		fd_list_done(&ret_outcome->fds);
	else
		ret_outcome->detail[0] = '\0';
	*reply = (struct verb_reply){
		.magic = VERB_MAGIC,
		.verb = request.verb,
		.sequence = request.sequence,
		.result = result,
		.value = result < 0 ? 0 : ret_outcome->value,
	};
	memcpy(reply->detail, ret_outcome->detail, sizeof(reply->detail));
	return result;
}

/* fds that are on their way, of any process of root, are limited by how many priv may open
 * (unix(7), ETOOMANYREFS). That is no fault of the front's, which hears of it. */
static ssize_t send_reply(int socket, struct verb_reply *reply, const struct fd_list *fds)
{
	ssize_t size = fd_send(socket, reply, sizeof(*reply), fds->fds, fds->count);

	if (size != -ETOOMANYREFS)
		return size;
	reply->result = -ETOOMANYREFS;
	reply->value = 0;
	snprintf(reply->detail, sizeof(reply->detail),
		"too many files of root's are on their way to other processes; try again later");
	return fd_send(socket, reply, sizeof(*reply), NULL, 0);
}

int verbs_serve(struct priv_context *context, int socket, struct verb_reply *ret_reply)
{
	cleanup_outcome struct verb_outcome outcome;
	cleanup_fds struct fd_list fds;
	uint8_t bytes[sizeof(struct verb_request) + 1];
	struct verb_reply reply;
	ssize_t size;

	outcome_init(&outcome);
	fd_list_init(&fds);
	linger_limit();
	size = fd_receive(socket, bytes, sizeof(bytes), &fds);
	linger_unlimit();
	if (size == 0 || size == -EAGAIN)
		return (int)size;
	/* More bytes or fds than fit: a request of a wrong size, whose fds are closed already. */
	if (size == -EBADMSG)
		size = sizeof(bytes);
	if (size < 0)
		return (int)size;
	verbs_answer(context, bytes, (size_t)size, &fds, &reply, &outcome);
	size = send_reply(socket, &reply, &outcome.fds);
	if (size < 0)
		return size == -EAGAIN ? -ENOBUFS : (int)size;
	*ret_reply = reply;
	return 1;
}

uint64_t verb_pace_take(struct verb_pace *pace, uint64_t now_us)
{
	const uint64_t second_us = 1000000;
	const uint64_t one_us = second_us / VERB_BURST;

	if (pace->full_at_us < now_us)
		pace->full_at_us = now_us;
	if (pace->full_at_us + one_us > now_us + second_us)
		return pace->full_at_us + one_us - now_us - second_us;
	pace->full_at_us += one_us;
	return 0;
}
