/* Which addresses the host has, and where its routes lead. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>

struct use_list {
	struct subnet_uses *uses;
	int error;
};

static struct ipv4_subnet make_subnet(const struct nlattr *address, uint8_t prefix_length)
{
	struct ipv4_subnet subnet = {.prefix_length = prefix_length};

	subnet.address.s_addr = nla_get_u32(address) & ipv4_subnet_mask(subnet).s_addr;
	return subnet;
}

static int add_use(struct use_list *list, const char *kind, struct ipv4_subnet subnet, int index)
{
	char link[IFNAMSIZ];
	char text[SUBNET_TEXT_SIZE];

	if (!if_indextoname((unsigned int)index, link))
		snprintf(link, sizeof(link), "number %d", index % 10000);
	ipv4_subnet_to_text(subnet, text);
	list->error = subnet_uses_add(list->uses, subnet, "%s %s of %s", kind, text, link);
	if (list->error)
		return NL_STOP;
	memcpy(list->uses->entries[list->uses->count - 1].link, link, sizeof(link));
	return NL_OK;
}

static int add_address(struct nl_msg *message, void *context)
{
	const struct ifaddrmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[IFA_MAX + 1];
	const struct nlattr *address;

	if (nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, IFA_MAX, NULL) < 0 ||
		header->ifa_family != AF_INET)
		return NL_OK;
	address = attributes[IFA_LOCAL] ? attributes[IFA_LOCAL] : attributes[IFA_ADDRESS];
	if (!address || nla_len(address) != sizeof(struct in_addr))
		return NL_OK;
	return add_use(context, "address", make_subnet(address, header->ifa_prefixlen),
		(int)header->ifa_index);
}

static int add_route(struct nl_msg *message, void *context)
{
	const struct rtmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[RTA_MAX + 1];
	const struct nlattr *destination;
	uint32_t table;

	if (nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, RTA_MAX, NULL) < 0 ||
		header->rtm_family != AF_INET)
		return NL_OK;
	destination = attributes[RTA_DST];
	table = attributes[RTA_TABLE] ? nla_get_u32(attributes[RTA_TABLE]) : header->rtm_table;
	/* The local table repeats the addresses. */
	if (!destination || nla_len(destination) != sizeof(struct in_addr) ||
		table == RT_TABLE_LOCAL)
		return NL_OK;
	return add_use(context, "route", make_subnet(destination, header->rtm_dst_len),
		attributes[RTA_OIF] ? (int)nla_get_u32(attributes[RTA_OIF]) : 0);
}

int platform_list_uses(struct platform *platform, struct subnet_uses *uses)
{
	struct use_list list = {.uses = uses};
	struct ifaddrmsg address_header = {.ifa_family = AF_INET};
	struct rtmsg route_header = {.rtm_family = AF_INET};
	int error = linux_dump(
		NULL, RTM_GETADDR, &address_header, sizeof(address_header), add_address, &list);

	if (!error)
		error = linux_dump(
			NULL, RTM_GETROUTE, &route_header, sizeof(route_header), add_route, &list);
	return error ? error : list.error;
}
