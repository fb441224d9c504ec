#include "priv/foreign-rules.h"

#include "base/cleanup.h"
#include "priv/nfnl.h"
#include "priv/rtnl.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <stdio.h>
#include <string.h>

/* What userdata of a rule is a comment: libnftnl's NFTNL_UDATA_RULE_COMMENT. */
#define USERDATA_COMMENT 0

struct opening {
	const char *what;
	uint8_t hook;
	bool not_ipv4, not_ipv6;
	bool towards_bridge;
	uint8_t protocol; /* 0: all */
	uint16_t port;    /* of the destination; 0: all */
};

static const struct opening openings[] = {
	{.what = "out", .hook = NF_INET_FORWARD},
	{.what = "in", .hook = NF_INET_FORWARD, .towards_bridge = true},
	{.what = "icmp", .hook = NF_INET_LOCAL_IN, .not_ipv6 = true, .protocol = IPPROTO_ICMP},
	{.what = "icmpv6", .hook = NF_INET_LOCAL_IN, .not_ipv4 = true, .protocol = IPPROTO_ICMPV6},
	{.what = "dhcp", NF_INET_LOCAL_IN, .not_ipv6 = true, .protocol = IPPROTO_UDP, .port = 67},
	{.what = "dhcpv6",
		NF_INET_LOCAL_IN,
		.not_ipv4 = true,
		.protocol = IPPROTO_UDP,
		.port = 547},
	{.what = "dns", .hook = NF_INET_LOCAL_IN, .protocol = IPPROTO_UDP, .port = 53},
	{.what = "dns-tcp", .hook = NF_INET_LOCAL_IN, .protocol = IPPROTO_TCP, .port = 53},
};

size_t foreign_openings_count(void)
{
	return array_length(openings);
}

bool foreign_opening_fits(size_t number, const struct foreign_chain *chain)
{
	const struct opening *opening = &openings[number];

	return opening->hook == chain->hook &&
	       !(opening->not_ipv4 && chain->family == NFPROTO_IPV4) &&
	       !(opening->not_ipv6 && chain->family == NFPROTO_IPV6);
}

static void write_tag(uint32_t instance, char tag[FOREIGN_COMMENT_SIZE])
{
	snprintf(tag, FOREIGN_COMMENT_SIZE, "vmnet/1/%08x ", instance);
}

void foreign_comment(
	uint32_t instance, const char *bridge, size_t opening, char comment[FOREIGN_COMMENT_SIZE])
{
	snprintf(comment, FOREIGN_COMMENT_SIZE, "vmnet/1/%08x %s %s", instance, bridge,
		openings[opening].what);
}

bool foreign_find_comment(
	uint32_t instance, const void *bytes, size_t size, char ret_comment[FOREIGN_COMMENT_SIZE])
{
	char tag[FOREIGN_COMMENT_SIZE];
	const char *found;
	size_t left;

	write_tag(instance, tag);
	found = memmem(bytes, size, tag, strlen(tag));
	if (!found)
		return false;
	left = size - (size_t)(found - (const char *)bytes);
	snprintf(ret_comment, FOREIGN_COMMENT_SIZE, "%.*s", (int)left, found);
	return true;
}

/* One expression of a rule: its name now, its attributes until end_expression(). */
struct expression {
	struct nlattr *element, *data;
};

static bool begin_expression(
	struct nl_msg *message, const char *name, struct expression *expression)
{
	expression->element = nla_nest_start(message, NFTA_LIST_ELEM);
	if (!expression->element || nla_put_string(message, NFTA_EXPR_NAME, name) < 0)
		return false;
	expression->data = nla_nest_start(message, NFTA_EXPR_DATA);
	return expression->data != NULL;
}

static void end_expression(struct nl_msg *message, const struct expression *expression)
{
	nla_nest_end(message, expression->data);
	nla_nest_end(message, expression->element);
}

static bool put_number(struct nl_msg *message, int attribute, uint32_t number)
{
	return nla_put_u32(message, attribute, htonl(number)) == 0;
}

static bool put_meta(struct nl_msg *message, uint32_t key)
{
	struct expression expression;

	if (!begin_expression(message, "meta", &expression) ||
		!put_number(message, NFTA_META_DREG, NFT_REG_1) ||
		!put_number(message, NFTA_META_KEY, key))
		return false;
	end_expression(message, &expression);
	return true;
}

static bool put_equal(struct nl_msg *message, const void *value, int size)
{
	struct expression expression;
	struct nlattr *data;

	if (!begin_expression(message, "cmp", &expression) ||
		!put_number(message, NFTA_CMP_SREG, NFT_REG_1) ||
		!put_number(message, NFTA_CMP_OP, NFT_CMP_EQ))
		return false;
	data = nla_nest_start(message, NFTA_CMP_DATA);
	if (!data || nla_put(message, NFTA_DATA_VALUE, size, value) < 0)
		return false;
	nla_nest_end(message, data);
	end_expression(message, &expression);
	return true;
}

/* The destination port is the second half of the first word, in TCP and UDP. */
static bool put_port(struct nl_msg *message, uint16_t port)
{
	const uint16_t value = htons(port);
	struct expression expression;

	if (!begin_expression(message, "payload", &expression) ||
		!put_number(message, NFTA_PAYLOAD_DREG, NFT_REG_1) ||
		!put_number(message, NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER) ||
		!put_number(message, NFTA_PAYLOAD_OFFSET, 2) ||
		!put_number(message, NFTA_PAYLOAD_LEN, sizeof(value)))
		return false;
	end_expression(message, &expression);
	return put_equal(message, &value, sizeof(value));
}

/* iptables-nft gives every rule one, and shows it. */
static bool put_counter(struct nl_msg *message)
{
	struct expression expression;

	if (!begin_expression(message, "counter", &expression))
		return false;
	end_expression(message, &expression);
	return true;
}

static bool put_accept(struct nl_msg *message)
{
	struct expression expression;
	struct nlattr *data, *verdict;

	if (!begin_expression(message, "immediate", &expression) ||
		!put_number(message, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT))
		return false;
	data = nla_nest_start(message, NFTA_IMMEDIATE_DATA);
	verdict = data ? nla_nest_start(message, NFTA_DATA_VERDICT) : NULL;
	if (!verdict || !put_number(message, NFTA_VERDICT_CODE, NF_ACCEPT))
		return false;
	nla_nest_end(message, verdict);
	nla_nest_end(message, data);
	end_expression(message, &expression);
	return true;
}

static bool put_expressions(
	struct nl_msg *message, const char *bridge, const struct opening *opening)
{
	struct nlattr *list = nla_nest_start(message, NFTA_RULE_EXPRESSIONS);
	char name[IFNAMSIZ] = "";

	snprintf(name, sizeof(name), "%s", bridge);
	if (!list ||
		!put_meta(message, opening->towards_bridge ? NFT_META_OIFNAME : NFT_META_IIFNAME) ||
		!put_equal(message, name, sizeof(name)))
		return false;
	if (opening->protocol &&
		(!put_meta(message, NFT_META_L4PROTO) ||
			!put_equal(message, &opening->protocol, sizeof(opening->protocol))))
		return false;
	if (opening->port && !put_port(message, opening->port))
		return false;
	if (!put_counter(message) || !put_accept(message))
		return false;
	nla_nest_end(message, list);
	return true;
}

/* A type, a length and the text with its NUL, as nft writes comments. */
static bool put_comment(struct nl_msg *message, const char *comment)
{
	uint8_t userdata[2 + FOREIGN_COMMENT_SIZE] = {USERDATA_COMMENT};
	size_t size = strlen(comment) + 1;

	userdata[1] = (uint8_t)size;
	memcpy(userdata + 2, comment, size);
	return nla_put(message, NFTA_RULE_USERDATA, (int)(2 + size), userdata) == 0;
}

static struct nl_msg *new_rule_message(int type, const struct foreign_chain *chain, int flags)
{
	struct nl_msg *message = nfnl_message(type, chain->family, flags);

	if (message && (nla_put_string(message, NFTA_RULE_TABLE, chain->table) < 0 ||
			       nla_put_string(message, NFTA_RULE_CHAIN, chain->name) < 0)) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

struct nl_msg *foreign_insert_message(
	uint32_t instance, const struct foreign_chain *chain, const char *bridge, size_t opening)
{
	/* Without NLM_F_APPEND a new rule is the first of its chain. */
	cleanup_with(nlmsg_free) struct nl_msg *message =
		new_rule_message(NFT_MSG_NEWRULE, chain, NLM_F_CREATE);
	char comment[FOREIGN_COMMENT_SIZE];

	foreign_comment(instance, bridge, opening, comment);
	if (!message || !put_expressions(message, bridge, &openings[opening]) ||
		!put_comment(message, comment))
		return NULL;
	return take_ptr(message);
}

struct nl_msg *foreign_delete_message(const struct foreign_chain *chain, uint64_t handle)
{
	cleanup_with(nlmsg_free) struct nl_msg *message =
		new_rule_message(NFT_MSG_DELRULE, chain, 0);

	if (!message || nla_put_u64(message, NFTA_RULE_HANDLE, htobe64(handle)) < 0)
		return NULL;
	return take_ptr(message);
}
