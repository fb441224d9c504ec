#include "priv/uplink-queue.h"

#include "priv/rtnl.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <string.h>

/* What may wait in all, when every frame is as large as the smallest MTU: about what two TCP
 * streams have on their way. Frames of larger networks may make it more. */
#define QUEUE_BYTES (30u << 20)
/* pasta's own, and what MTU 1500 takes. */
#define QUEUE_FRAMES_MIN 1000u
#define QUEUE_FRAMES_MAX 20000u

static uint32_t choose_length(const struct bridge_facts *bridges, size_t bridges_count)
{
	uint32_t mtu = UINT32_MAX;
	uint32_t frames;

	for (size_t i = 0; i < bridges_count; i++)
		if (bridges[i].mode == NETWORK_MODE_SHARED && bridges[i].mtu < mtu)
			mtu = bridges[i].mtu;
	frames = QUEUE_BYTES / mtu;
	if (frames < QUEUE_FRAMES_MIN)
		return QUEUE_FRAMES_MIN;
	return frames < QUEUE_FRAMES_MAX ? frames : QUEUE_FRAMES_MAX;
}

/* Not by ioctl(2), which asks for the capability in the first namespace of all. */
static int set_length(struct links *links, const char *name, uint32_t frames)
{
	int index = (int)if_nametoindex(name);
	cleanup_with(nlmsg_free) struct nl_msg *message = NULL;

	if (!index)
		return 0;
	message = rtnl_new_link_message(RTM_NEWLINK, AF_UNSPEC, index);
	if (!message || nla_put_u32(message, IFLA_TXQLEN, frames) < 0)
		return -ENOMEM;
	return rtnl_request(links, take_ptr(message));
}

int uplink_queues_apply(struct links *links, struct verb_outcome *outcome)
{
	cleanup_free struct bridge_facts *bridges = NULL;
	cleanup_free char(*uplinks)[IFNAMSIZ] = NULL;
	size_t bridges_count, uplinks_count = 0;
	int error = links_list_bridges(links, &bridges, &bridges_count);

	if (!error)
		error = links_list_uplinks(links, AF_INET, &uplinks, &uplinks_count);
	for (size_t i = 0; i < uplinks_count && (!error || error == -ENODEV); i++)
		error = set_length(links, uplinks[i], choose_length(bridges, bridges_count));
	if (error && error != -ENODEV)
		return outcome_fail(
			outcome, error, "the queue of the way out: %s", strerror(-error));
	return 0;
}
