#include "helper/attach.h"

#include "base/cleanup.h"
#include "helper/port.h"
#include "wire/startline.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

static struct vmnet_broker_interface_options wanted_interface(const struct attach_request *request)
{
	const struct helper_options *options = request->options;

	return (struct vmnet_broker_interface_options){
		.mac = options->has_mac ? options->mac.bytes : NULL,
		.interface_id = options->has_interface_id ? options->interface_id.bytes : NULL,
		.hostname = *options->hostname ? options->hostname : NULL,
		.queues = options->queues > 1 ? options->queues : 0,
		.sockets = {request->vm_socket},
		.sockets_count = request->vm_socket >= 0 ? 1 : 0,
	};
}

static void create_interface(struct attach_request *request)
{
	struct vmnet_broker_interface_options wanted = wanted_interface(request);
	const char *said;

	request->status = vmnet_broker_create_interface(
		request->broker, request->options->network, &wanted, &request->interface);
	if (request->status == VMNET_BROKER_SUCCESS)
		return;
	said = vmnet_broker_reason(request->broker);
	snprintf(request->reason, sizeof(request->reason), "cannot join network \"%s\": %s",
		request->options->network,
		said && *said ? said : vmnet_broker_strerror(request->status));
}

static void *run_request(void *context)
{
	struct attach_request *request = context;

	create_interface(request);
	eventfd_write(request->done_event, 1);
	return NULL;
}

void attach_request_free(struct attach_request *request)
{
	vmnet_broker_close(request->broker);
	fd_close(request->done_event);
	free(request);
}
DEFINE_CLEANUP(struct attach_request, attach_request_free)

int attach_request_start(vmnet_broker_t *broker, const struct helper_options *options,
	int vm_socket, struct attach_request **ret_request)
{
	cleanup_with(attach_request_free) struct attach_request *request =
		calloc(1, sizeof(*request));
	int error;

	if (!request) {
		vmnet_broker_close(broker);
		return -ENOMEM;
	}
	request->broker = broker;
	request->options = options;
	request->vm_socket = vm_socket;
	request->done_event = eventfd(0, EFD_CLOEXEC);
	if (request->done_event < 0)
		return -errno;
	error = pthread_create(&request->thread, NULL, run_request, request);
	if (error)
		return -error;
	*ret_request = take_ptr(request);
	return 0;
}

void attach_request_wait(struct attach_request *request)
{
	pthread_join(request->thread, NULL);
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
	bool is_large =
		options->vhost_user_path || helper_options_offload_mode(options) != OFFLOAD_NONE;
	struct startline line = {
		.network = network->name,
		.interface_name = interface->name,
		.network_was_named = options->network_was_named,
		.address = interface->address,
		.subnet = subnet_of(network),
		.gateway = network->gateway,
		.is_shared = strcmp(network->mode, "shared") == 0,
		.has_ipv6 = network->has_ipv6,
		.ipv6_prefix = network->ipv6_prefix,
		.mtu = network->mtu,
		.max_packet_size = is_large ? FRAME_SIZE_MAX : network->mtu + FRAME_HEADER_SIZE,
		.read_max_packets = BATCH_FRAMES,
		.write_max_packets = BATCH_FRAMES,
	};

	memcpy(line.mac.bytes, interface->mac, sizeof(line.mac.bytes));
	memcpy(line.interface_id.bytes, interface->interface_id, sizeof(line.interface_id.bytes));
	return startline_to_text(&line, ret_text);
}
