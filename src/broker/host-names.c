#include "broker/host-names.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <string.h>

void host_names_announce(const struct network *network)
{
	char domain[NETWORK_DOMAIN_SIZE];
	int error;

	if (!network->settings.dns)
		return;
	network_get_domain(network, domain);
	error = platform_announce_names(network->registry->platform, &network->link, domain);
	if (error)
		log_warn(network->tag, "the host could not be told of its names: %s",
			strerror(-error));
}

void host_names_report_refusal(const struct network *network, const char *reason)
{
	char gateway[INET_ADDRSTRLEN], domain[NETWORK_DOMAIN_SIZE];
	struct in_addr address;

	if (!network || network->state == NETWORK_ABSENT)
		return;
	network_get_domain(network, domain);
	address = ipv4_subnet_host(network->link.subnet, network->link.gateway_offset);
	inet_ntop(AF_INET, &address, gateway, sizeof(gateway));
	log_warn(network->tag,
		"the host does not find the names of its VMs, because systemd-resolved refuses: "
		"%s; "
		"install the polkit rule vmnet-broker.rules, or run \"resolvectl dns %s %s\" and "
		"\"resolvectl domain %s ~%s\" as root",
		reason, network->link.bridge, gateway, network->link.bridge, domain);
}
