/* Links of the host that VMs of networks of mode bridged are put on. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

static int take_mtu(struct nl_msg *message, void *context)
{
	struct nlattr *attributes[IFLA_MAX + 1];
	uint32_t *mtu = context;

	if (nlmsg_parse(nlmsg_hdr(message), sizeof(struct ifinfomsg), attributes, IFLA_MAX, NULL) >=
			0 &&
		attributes[IFLA_MTU])
		*mtu = nla_get_u32(attributes[IFLA_MTU]);
	return NL_OK;
}

int platform_read_uplink(struct platform *platform, const char *name, uint32_t *ret_mtu)
{
	struct ifinfomsg header = {.ifi_family = AF_UNSPEC};
	uint32_t mtu = 0;
	int error;

	header.ifi_index = (int)if_nametoindex(name);
	if (!header.ifi_index)
		return -ENODEV;
	error = linux_get(NULL, RTM_GETLINK, &header, sizeof(header), take_mtu, &mtu);
	if (error || !mtu)
		return error ? error : -ENODEV;
	*ret_mtu = mtu;
	return 0;
}
