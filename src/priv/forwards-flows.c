#include "priv/forwards-flows.h"

#include "priv/nfnl.h"
#include "priv/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

/* More than these at once end by their time-outs. */
#define FLOWS_MAX 65536

/* --- which are stale --- */

static bool is_zero(const uint8_t address[16])
{
	static const uint8_t zeros[16];

	return memcmp(address, zeros, sizeof(zeros)) == 0;
}

/* The forward that would take it: one of its address before one of every address. */
static const struct verb_forward *find_forward(const struct forwards_flow *flow,
	const struct verb_forward *forwards, size_t forwards_count)
{
	const struct verb_forward *found = NULL;

	for (size_t i = 0; i < forwards_count; i++) {
		const struct verb_forward *forward = &forwards[i];

		if (forward->protocol != IPPROTO_UDP || forward->is_ipv6 != flow->is_ipv6 ||
			forward->listen_port != flow->port)
			continue;
		if (memcmp(forward->listen, flow->address, sizeof(flow->address)) == 0)
			return forward;
		if (is_zero(forward->listen))
			found = forward;
	}
	return found;
}

static bool is_on(const struct forwards_flow *flow, const struct bridge_facts *bridge)
{
	struct in_addr target;

	if (flow->is_ipv6)
		return bridge->has_ipv6 &&
		       memcmp(flow->target, bridge->ipv6_prefix, IPV6_PREFIX_SIZE) == 0;
	memcpy(&target, flow->target, sizeof(target));
	return ipv4_subnet_contains(bridge->subnet, target);
}

bool forwards_flow_is_stale(const struct forwards_flow *flow, const struct verb_forward *forwards,
	size_t forwards_count, const struct bridge_facts *bridges, size_t bridges_count)
{
	const struct verb_forward *forward = find_forward(flow, forwards, forwards_count);

	/* What others mask they need to know again; such a flow was never for the host. */
	if (!flow->is_led)
		return forward && !flow->is_masked;
	for (size_t i = 0; i < bridges_count; i++)
		if (is_on(flow, &bridges[i]))
			return !forward || forward->target_port != flow->target_port ||
			       memcmp(forward->target, flow->target, sizeof(flow->target)) != 0;
	return false;
}

/* --- reading them --- */

/* One tuple: addresses and ports of a direction. */
struct tuple {
	uint8_t is_ipv6;
	uint8_t protocol;
	uint8_t source[16], destination[16];
	uint16_t source_port, destination_port;
};

static bool copy_address(const struct nlattr *attribute, size_t size, uint8_t address[16])
{
	if (!attribute || nla_len(attribute) < (int)size)
		return false;
	memset(address, 0, 16);
	memcpy(address, nla_data(attribute), size);
	return true;
}

static bool parse_addresses(struct nlattr *nested, struct tuple *tuple)
{
	struct nlattr *attributes[CTA_IP_MAX + 1];
	bool is_ipv6 = tuple->is_ipv6;

	return nested && nla_parse_nested(attributes, CTA_IP_MAX, nested, NULL) == 0 &&
	       copy_address(attributes[is_ipv6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC], is_ipv6 ? 16 : 4,
		       tuple->source) &&
	       copy_address(attributes[is_ipv6 ? CTA_IP_V6_DST : CTA_IP_V4_DST], is_ipv6 ? 16 : 4,
		       tuple->destination);
}

static bool parse_ports(struct nlattr *nested, struct tuple *tuple)
{
	struct nlattr *attributes[CTA_PROTO_MAX + 1];

	if (!nested || nla_parse_nested(attributes, CTA_PROTO_MAX, nested, NULL) < 0 ||
		!attributes[CTA_PROTO_NUM] || !attributes[CTA_PROTO_SRC_PORT] ||
		!attributes[CTA_PROTO_DST_PORT])
		return false;
	tuple->protocol = nla_get_u8(attributes[CTA_PROTO_NUM]);
	tuple->source_port = ntohs(nla_get_u16(attributes[CTA_PROTO_SRC_PORT]));
	tuple->destination_port = ntohs(nla_get_u16(attributes[CTA_PROTO_DST_PORT]));
	return true;
}

static bool parse_tuple(struct nlattr *nested, uint8_t family, struct tuple *ret_tuple)
{
	struct nlattr *attributes[CTA_TUPLE_MAX + 1];

	*ret_tuple = (struct tuple){.is_ipv6 = family == AF_INET6};
	return nested && nla_parse_nested(attributes, CTA_TUPLE_MAX, nested, NULL) == 0 &&
	       parse_addresses(attributes[CTA_TUPLE_IP], ret_tuple) &&
	       parse_ports(attributes[CTA_TUPLE_PROTO], ret_tuple);
}

/* The flows of one family that are to end, as requests to that effect. */
struct search {
	const struct verb_forward *forwards;
	size_t forwards_count;
	const struct bridge_facts *bridges;
	size_t bridges_count;
	struct nl_msg **deletions; /* owned, and so is each */
	size_t count, room;
};

static void search_done(struct search *search)
{
	for (size_t i = 0; i < search->count; i++)
		nlmsg_free(search->deletions[i]);
	free(search->deletions);
}
#define cleanup_search __attribute__((__cleanup__(search_done)))

static struct nl_msg *new_request(int type, uint8_t family, int flags)
{
	const struct nfgenmsg header = {.nfgen_family = family, .version = NFNETLINK_V0};
	struct nl_msg *message = nlmsg_alloc_simple(NFNL_SUBSYS_CTNETLINK << 8 | type, flags);

	if (message && nlmsg_append(message, (void *)(uintptr_t)&header, sizeof(header),
			       NLMSG_ALIGNTO) < 0) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

static int add_deletion(struct search *search, uint8_t family, const struct nlattr *original)
{
	cleanup_with(nlmsg_free) struct nl_msg *deletion =
		new_request(IPCTNL_MSG_CT_DELETE, family, NLM_F_REQUEST | NLM_F_ACK);

	if (!deletion || nla_put(deletion, CTA_TUPLE_ORIG | NLA_F_NESTED, nla_len(original),
				 nla_data(original)) < 0)
		return -ENOMEM;
	if (search->count == search->room) {
		size_t room = search->room ? 2 * search->room : 16;
		struct nl_msg **grown =
			reallocarray(search->deletions, room, sizeof(*search->deletions));

		if (!grown)
			return -ENOMEM;
		search->deletions = grown;
		search->room = room;
	}
	search->deletions[search->count++] = take_ptr(deletion);
	return 0;
}

static bool parse_flow(
	struct nlattr *const attributes[], uint8_t family, struct forwards_flow *ret_flow)
{
	struct tuple original, reply;
	uint32_t status;

	if (!parse_tuple(attributes[CTA_TUPLE_ORIG], family, &original) ||
		!parse_tuple(attributes[CTA_TUPLE_REPLY], family, &reply) ||
		original.protocol != IPPROTO_UDP || !attributes[CTA_STATUS])
		return false;
	status = ntohl(nla_get_u32(attributes[CTA_STATUS]));
	*ret_flow = (struct forwards_flow){
		.is_ipv6 = original.is_ipv6,
		.is_led = status & IPS_DST_NAT,
		.is_masked = status & IPS_SRC_NAT,
		.port = original.destination_port,
		.target_port = reply.source_port,
	};
	memcpy(ret_flow->address, original.destination, sizeof(ret_flow->address));
	memcpy(ret_flow->target, reply.source, sizeof(ret_flow->target));
	return true;
}

static int take_flow(struct nl_msg *message, void *context)
{
	struct search *search = context;
	const struct nfgenmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[CTA_MAX + 1];
	struct forwards_flow flow;

	if (nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, CTA_MAX, NULL) < 0 ||
		!parse_flow(attributes, header->nfgen_family, &flow) ||
		!forwards_flow_is_stale(&flow, search->forwards, search->forwards_count,
			search->bridges, search->bridges_count))
		return NL_OK;
	if (search->count == FLOWS_MAX ||
		add_deletion(search, header->nfgen_family, attributes[CTA_TUPLE_ORIG]) < 0)
		return NL_STOP;
	return NL_OK;
}

/* --- ending them --- */

static int end_family(struct nl_sock *socket, struct search *search, uint8_t family)
{
	struct nl_msg *request = new_request(IPCTNL_MSG_CT_GET, family, NLM_F_REQUEST);
	int error = request ? nfnl_dump(socket, request, take_flow, search) : -ENOMEM;

	/* Flows come and go all the time: what was seen is enough. */
	if (error && error != -EINTR)
		return error;
	for (size_t i = 0; i < search->count; i++)
		if (nl_send_auto(socket, search->deletions[i]) >= 0)
			/* It may have ended by itself. */
			(void)nl_wait_for_ack(socket);
	return 0;
}

int forwards_end_flows(const struct verb_forward *forwards, size_t forwards_count,
	const struct bridge_facts *bridges, size_t bridges_count, struct verb_outcome *outcome)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	cleanup_with(nl_socket_free) struct nl_sock *socket = NULL;
	int error = nfnl_open(&socket);

	for (size_t i = 0; i < array_length(families) && !error; i++) {
		cleanup_search struct search search = {
			.forwards = forwards,
			.forwards_count = forwards_count,
			.bridges = bridges,
			.bridges_count = bridges_count,
		};

		error = end_family(socket, &search, families[i]);
	}
	/* So the kernel answers where nobody has the subsystem. */
	if (error == -EOPNOTSUPP || error == -EINVAL || error == -EPROTONOSUPPORT)
		error = 0;
	return error ? outcome_fail(outcome, error, "ending flows: %s", strerror(-error)) : 0;
}
