#include "helper/attach.h"

#include "base/cleanup.h"
#include "client/joining.h"
#include "helper/port.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

static void create_interface(struct attach_request *request)
{
	const struct helper_options *options = request->options;
	struct vmnet_broker_network_options network = joining_network(&options->interface);
	struct vmnet_broker_interface_options wanted =
		joining_interface(&options->interface, &network);
	const char *said;

	wanted.queues = options->queues > 1 ? options->queues : 0;
	wanted.sockets[0] = request->vm_socket;
	wanted.sockets_count = request->vm_socket >= 0 ? 1 : 0;
	request->status = vmnet_broker_create_interface(
		request->broker, options->interface.network, &wanted, &request->interface);
	if (request->status == VMNET_BROKER_SUCCESS) {
		joining_keep_namespace(&request->interface);
		/* A broker of an earlier version has no use for them. */
		(void)vmnet_broker_serve_counters(
			request->broker, request->interface.name, &request->counters_listener);
		return;
	}
	said = vmnet_broker_reason(request->broker);
	snprintf(request->reason, sizeof(request->reason), "cannot join network \"%s\": %s",
		interface_options_network(&options->interface),
		said && *said ? said : vmnet_broker_strerror(request->status));
}

static void *run_request(void *context)
{
	struct attach_request *request = context;

	create_interface(request);
	eventfd_write(request->done_event, 1);
	return NULL;
}

vmnet_broker_t *attach_request_take_broker(struct attach_request *request)
{
	return request->interface.held_by_connection ? take_ptr(request->broker) : NULL;
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
	request->counters_listener = -1;
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

int attach_startline(const struct vmnet_broker_interface *interface,
	const struct helper_options *options, char **ret_text)
{
	struct startline line = joining_startline(&options->interface, interface);
	bool is_large =
		options->vhost_user_path || helper_options_offload_mode(options) != OFFLOAD_NONE;

	line.max_packet_size =
		is_large ? FRAME_SIZE_MAX : interface->network.mtu + FRAME_HEADER_SIZE;
	line.read_max_packets = BATCH_FRAMES;
	line.write_max_packets = BATCH_FRAMES;
	return startline_to_text(&line, ret_text);
}
