#include "client/joining.h"

#include "base/cleanup.h"
#include "base/tap-namespace.h"

#include <string.h>

struct vmnet_broker_network_options joining_network(const struct interface_options *options)
{
	return (struct vmnet_broker_network_options){
		.mode = options->operation_mode,
		.start_address = options->start_address,
		.end_address = options->end_address,
		.subnet_mask = options->subnet_mask,
		.shared_interface = options->shared_interface,
	};
}

struct vmnet_broker_interface_options joining_interface(
	const struct interface_options *options, const struct vmnet_broker_network_options *network)
{
	return (struct vmnet_broker_interface_options){
		.mac = options->has_mac ? options->mac.bytes : NULL,
		.interface_id = options->has_interface_id ? options->interface_id.bytes : NULL,
		.hostname = options->hostname,
		.isolation = options->isolation,
		.network = network,
	};
}

void joining_keep_namespace(const struct vmnet_broker_interface *interface)
{
	static int kept = -1;
	int fd;

	if (interface->queues_count == 0 || tap_namespace_open(interface->queues[0], &fd) < 0)
		return;
	fd_close(kept);
	kept = fd;
}

struct startline joining_startline(
	const struct interface_options *options, const struct vmnet_broker_interface *interface)
{
	const struct vmnet_broker_network *network = &interface->network;
	struct startline line = {
		.network = network->name,
		.interface_name = interface->name,
		.network_was_named = options->network != NULL,
		.address = interface->address,
		.subnet.address = network->subnet,
		.subnet.prefix_length = (uint8_t)__builtin_popcount(network->mask.s_addr),
		.gateway = network->gateway,
		.end_address = network->last_address,
		.is_shared = strcmp(network->mode, "shared") == 0,
		.has_ipv6 = network->has_ipv6,
		.ipv6_prefix = network->ipv6_prefix,
		.mtu = network->mtu,
	};

	memcpy(line.mac.bytes, interface->mac, sizeof(line.mac.bytes));
	memcpy(line.interface_id.bytes, interface->interface_id, sizeof(line.interface_id.bytes));
	return line;
}
