#include "priv/uplink.h"

#include <errno.h>
#include <net/if_arp.h>
#include <string.h>

/* The kernel's own word on what is a radio; its directories are there for the namespace that /sys
 * was mounted in, and for the name that is no alternative one. */
static bool is_wireless(struct rtnl_link *link)
{
	static const char *const marks[] = {"phy80211", "wireless"};
	const char *name = rtnl_link_get_name(link);

	for (size_t i = 0; i < array_length(marks); i++) {
		char path[64];

		snprintf(
			path, sizeof(path), "/sys/class/net/%.*s/%s", IFNAMSIZ - 1, name, marks[i]);
		if (access(path, F_OK) == 0)
			return true;
	}
	return false;
}

bool uplink_is_bridge(struct rtnl_link *uplink)
{
	const char *kind = rtnl_link_get_type(uplink);

	return kind && strcmp(kind, "bridge") == 0;
}

static int check_kind(struct rtnl_link *link, const char *name, struct verb_outcome *outcome)
{
	const char *alias = rtnl_link_get_ifalias(link);
	struct link_tag tag;

	if (alias && link_tag_from_text(alias, &tag) == 0)
		return outcome_fail(outcome, -EPERM,
			"%s belongs to network \"%s\": join that instead", name, tag.network);
	if (rtnl_link_get_arptype(link) != ARPHRD_ETHER)
		return outcome_fail(
			outcome, -EOPNOTSUPP, "%s is no Ethernet interface: share another", name);
	if (is_wireless(link))
		return outcome_fail(outcome, -EOPNOTSUPP,
			"%s is a Wi-Fi interface, which lets no other MAC than its own through: "
			"use mode shared",
			name);
	return 0;
}

static int check_state(
	struct links *links, struct rtnl_link *link, const char *name, struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *master = NULL;
	int index = rtnl_link_get_master(link);

	if (!(rtnl_link_get_flags(link) & IFF_UP))
		return outcome_fail(
			outcome, -ENETDOWN, "%s is down: ip link set %s up", name, name);
	if (index == 0 || rtnl_link_get_kernel(links->socket, index, NULL, &master) < 0)
		return 0;
	return outcome_fail(outcome, -EBUSY, "%s is a part of %s: share that instead", name,
		rtnl_link_get_name(master));
}

int uplink_find(struct links *links, const char *name, struct rtnl_link **ret_link,
	struct verb_outcome *outcome)
{
	cleanup_with(rtnl_link_put) struct rtnl_link *link = NULL;
	int error = rtnl_find_link(links, name, &link);

	if (error == -ENODEV)
		return outcome_fail(outcome, error, "the host has no interface %s", name);
	if (error)
		return outcome_fail(outcome, error, "looking for %s: %s", name, strerror(-error));
	error = check_kind(link, name, outcome);
	if (!error)
		error = check_state(links, link, name, outcome);
	if (!error)
		*ret_link = take_ptr(link);
	return error;
}
