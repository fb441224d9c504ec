/* What people and peers are told of a network. */
#include "broker/network.h"

#include <stdio.h>
#include <string.h>

void network_get_domain(const struct network *network, char domain[NETWORK_DOMAIN_SIZE])
{
	const struct network_settings *settings =
		network->state == NETWORK_ABSENT && network->config ? &network->config->settings
								    : &network->settings;

	if (*settings->domain)
		memcpy(domain, settings->domain, NETWORK_DOMAIN_SIZE);
	else
		network_domain(network->name, domain);
}

void network_describe(const struct network *network, struct broker_network *ret_network)
{
	struct broker_network described = {.running = network->state != NETWORK_ABSENT};
	uint32_t gateway_offset, last_offset;
	enum network_mode mode =
		described.running ? network->link.mode : network->config->settings.mode;

	snprintf(described.name, sizeof(described.name), "%s", network->name);
	snprintf(described.mode, sizeof(described.mode), "%s", network_mode_to_text(mode));
	network_get_domain(network, described.domain);
	if (network->config)
		memcpy(described.description, network->config->description,
			sizeof(described.description));
	if (described.running) {
		described.mtu = network->link.mtu;
		described.subnet = network->link.subnet;
		described.has_ipv6 = network->link.has_ipv6;
		described.ipv6_prefix = network->link.ipv6_prefix;
		snprintf(described.bridge, sizeof(described.bridge), "%s", network->link.bridge);
	} else {
		described.mtu = network->config->settings.mtu;
		if (network->config->settings.has_subnet)
			described.subnet = network->config->settings.subnet;
		else if (network->memory.has_subnet)
			described.subnet = network->memory.subnet;
	}
	gateway_offset = described.running ? network->link.gateway_offset
					   : network->config->settings.gateway_offset;
	last_offset = described.running ? network->settings.last_offset
					: network->config->settings.last_offset;
	if (described.subnet.prefix_length) {
		described.gateway =
			ipv4_subnet_host(described.subnet, gateway_offset ? gateway_offset : 1);
		described.last_address = ipv4_subnet_host(described.subnet,
			last_offset ? last_offset : ipv4_subnet_size(described.subnet) - 2);
	}
	if (mode == NETWORK_MODE_BRIDGED)
		snprintf(described.uplink, sizeof(described.uplink), "%s",
			described.running ? network->settings.uplink
					  : network->config->settings.uplink);
	*ret_network = described;
}
