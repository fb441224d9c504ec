#include "helper/attach.h"

#include "base/cleanup.h"
#include "helper/port.h"
#include "wire/startline.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static struct vmnet_broker_interface_options wanted_interface(const struct attach_request *request)
{
	const struct helper_options *options = request->options;

	return (struct vmnet_broker_interface_options){
		.mac = options->has_mac ? options->mac.bytes : NULL,
		.interface_id = options->has_interface_id ? options->interface_id.bytes : NULL,
		.hostname = *options->hostname ? options->hostname : NULL,
		.sockets = {request->vm_socket},
		.sockets_count = 1,
	};
}

void *attach_create_interface(void *context)
{
	struct attach_request *request = context;
	struct vmnet_broker_interface_options wanted = wanted_interface(request);
	const char *said;

	request->status = vmnet_broker_create_interface(
		request->broker, request->options->network, &wanted, &request->interface);
	if (request->status == VMNET_BROKER_SUCCESS)
		return NULL;
	said = vmnet_broker_reason(request->broker);
	snprintf(request->reason, sizeof(request->reason), "cannot join network \"%s\": %s",
		request->options->network,
		said && *said ? said : vmnet_broker_strerror(request->status));
	return NULL;
}

static struct ipv4_subnet subnet_of(const struct vmnet_broker_network *network)
{
	return (struct ipv4_subnet){
		.address = network->subnet,
		.prefix_length = (uint8_t)__builtin_popcount(network->mask.s_addr),
	};
}

int attach_startline(const struct vmnet_broker_interface *interface,
	const struct helper_options *options, char **ret_text)
{
	const struct vmnet_broker_network *network = &interface->network;
	struct startline line = {
		.network = network->name,
		.interface_name = interface->name,
		.network_was_named = options->network_was_named,
		.address = interface->address,
		.subnet = subnet_of(network),
		.gateway = network->gateway,
		.mtu = network->mtu,
		.max_packet_size = network->mtu + FRAME_HEADER_SIZE,
		.read_max_packets = BATCH_FRAMES,
		.write_max_packets = BATCH_FRAMES,
	};

	memcpy(line.mac.bytes, interface->mac, sizeof(line.mac.bytes));
	memcpy(line.interface_id.bytes, interface->interface_id, sizeof(line.interface_id.bytes));
	return startline_to_text(&line, ret_text);
}
