/* What the kernel has counted of our interfaces (RTM_GETSTATS, linux/if_link.h). */
#include "broker/linux.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>

struct count {
	const struct platform *platform;
	platform_traffic_found *found;
	void *context;
};

static struct platform_counters received(const struct rtnl_link_stats64 *stats)
{
	return (struct platform_counters){
		.packets = stats->rx_packets,
		.bytes = stats->rx_bytes,
		.drops = stats->rx_dropped + stats->rx_errors,
	};
}

static struct platform_counters sent(const struct rtnl_link_stats64 *stats)
{
	return (struct platform_counters){
		.packets = stats->tx_packets,
		.bytes = stats->tx_bytes,
		.drops = stats->tx_dropped + stats->tx_errors,
	};
}

static int take_stats(struct nl_msg *message, void *context)
{
	const struct if_stats_msg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[IFLA_STATS_MAX + 1];
	struct platform_counters in, out;
	struct rtnl_link_stats64 stats = {0};
	struct count *count = context;
	enum link_kind kind;
	uint32_t number;

	if (!link_watch_find_interface(
		    count->platform->links, (int)header->ifindex, &kind, &number) ||
		nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, IFLA_STATS_MAX, NULL) <
			0 ||
		!attributes[IFLA_STATS_LINK_64])
		return NL_OK;
	/* A newer kernel's is longer, an older one's shorter. */
	nla_memcpy(&stats, attributes[IFLA_STATS_LINK_64], sizeof(stats));
	in = received(&stats);
	out = sent(&stats);
	/* What the host sends into a TAP is for the VM; a macvtap link sends what the VM sent. */
	if (kind == LINK_KIND_TAP)
		count->found(count->context, number, &out, &in);
	else
		count->found(count->context, number, &in, &out);
	return NL_OK;
}

int platform_count_traffic(struct platform *platform, platform_traffic_found *found, void *context)
{
	struct if_stats_msg header = {
		.filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64),
	};
	struct count count = {platform, found, context};

	return linux_dump(platform, RTM_GETSTATS, &header, sizeof(header), take_stats, &count);
}
