/* What of the host is in a network's way, in words for people. */
#include "broker/network-obstacles.h"

#include "base/log.h"

#include <string.h>

#define DNS_PORT  53
#define DHCP_PORT 67

static bool is_bridge_of_ours(const struct registry *registry, const char *link)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		if (network->state != NETWORK_ABSENT && strcmp(network->link.bridge, link) == 0)
			return true;
	return false;
}

static const struct subnet_use *find_use(
	const struct network *network, const struct subnet_uses *uses)
{
	for (size_t i = 0; i < uses->count; i++) {
		const struct subnet_use *use = &uses->entries[i];
		const struct subnet_uses one = {.entries = &uses->entries[i], .count = 1};

		if (subnet_find_use(&one, network->link.subnet) &&
			!is_bridge_of_ours(network->registry, use->link))
			return use;
	}
	return NULL;
}

int network_find_overlap(const struct network *network, char *text, size_t text_size)
{
	struct subnet_uses uses = {0};
	const struct subnet_use *use = NULL;
	int error = platform_list_uses(network->registry->platform, &uses);

	if (!error)
		use = find_use(network, &uses);
	if (use)
		snprintf(text, text_size, "%s", use->owner);
	subnet_uses_done(&uses);
	if (error)
		return error;
	return use ? 1 : 0;
}

static void warn(const struct network *network, const char *use)
{
	char subnet[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(network->link.subnet, subnet);
	log_warn(network->tag,
		"its subnet %s overlaps the host's %s now: VMs go on, but those addresses of the "
		"host's are out of reach; %s",
		subnet, use,
		network->settings.has_subnet
			? "give it another \"subnet\" in the configuration, then end its VMs"
			: "end its VMs, and it starts on a free one");
}

void registry_check_overlaps(struct registry *registry)
{
	char text[SUBNET_OWNER_SIZE];

	for (struct network *network = registry->networks; network; network = network->next) {
		int found;

		if (network->state == NETWORK_ABSENT || network->overlap_told)
			continue;
		found = network_find_overlap(network, text, sizeof(text));
		if (found <= 0)
			continue;
		warn(network, text);
		network->overlap_told = true;
	}
}

/* dnsmasq only says that the address is in use. */
void network_explain_failure(
	const struct network *network, const char *reason, struct failure *failure)
{
	char holder[PLATFORM_DETAIL_SIZE];
	bool is_dhcp = strstr(reason, "DHCP");

	if (strstr(reason, "in use") && platform_find_port_holder(network->registry->platform,
						is_dhcp ? DHCP_PORT : DNS_PORT, holder))
		failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"network \"%s\": its DHCP and DNS server dnsmasq does not start: port %d "
			"of every address is taken by %s; have that listen on addresses of its "
			"own (dnsmasq: bind-interfaces, BIND: listen-on, unbound: interface), or "
			"set \"%s\": false for this network",
			network->name, is_dhcp ? DHCP_PORT : DNS_PORT, holder,
			is_dhcp ? "dhcp" : "dns");
	else
		failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"network \"%s\": its DHCP and DNS server dnsmasq does not start: %s",
			network->name, reason);
}

void registry_tell_refusal(const char *bridge, const char *reason)
{
	static const char no_zone[] = "INVALID_ZONE";

	if (strncmp(reason, no_zone, strlen(no_zone)) == 0)
		log_warn("main",
			"firewalld does not know the zone vmnet yet, so bridge %s is in its zone "
			"trusted: run \"firewall-cmd --reload\"",
			bridge);
	else
		log_warn("main",
			"firewalld does not let bridge %s through: %s; run \"firewall-cmd "
			"--zone=trusted --add-interface=%s\" as root",
			bridge, reason, bridge);
}
