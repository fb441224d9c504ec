#include "run/attach.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "client/joining.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define TAG "runner"

static_assert(RUN_QUEUES_MAX == VMNET_BROKER_INTERFACE_QUEUES_MAX, "what is asked for, fits");

/* What the broker said names the trouble; where it said nothing, the network and the kind of
 * trouble must do. */
static int describe_failure(const vmnet_broker_t *broker, const struct run_options *options,
	vmnet_broker_status_t status, char *error)
{
	const char *reason = vmnet_broker_reason(broker);

	if (reason[0])
		snprintf(error, ATTACH_ERROR_SIZE, "%s", reason);
	else
		snprintf(error, ATTACH_ERROR_SIZE, "network \"%s\": %s",
			interface_options_network(&options->interface),
			vmnet_broker_strerror(status));
	return -EIO;
}

static const int socket_types[RUN_ATTACH_COUNT] = {
	[RUN_ATTACH_SOCKET] = SOCK_DGRAM,
	[RUN_ATTACH_STREAM] = SOCK_STREAM,
};

static int make_sockets(vmnet_broker_t *broker, const struct run_options *options,
	struct attachment *attachment, char *error)
{
	vmnet_broker_status_t status;
	uint32_t bytes = 0;
	int pair[2];

	if (socketpair(AF_UNIX, socket_types[options->attach] | SOCK_CLOEXEC, 0, pair) < 0) {
		int result = -errno;

		snprintf(error, ATTACH_ERROR_SIZE, "can't make a socket pair: %s",
			strerror(-result));
		return result;
	}
	attachment->helper_socket = pair[0];
	attachment->fds[0] = pair[1];
	attachment->fds_count = 1;
	status = vmnet_broker_enlarge_socket_buffers(broker, pair, array_length(pair), &bytes);
	if (status == VMNET_BROKER_SUCCESS)
		log_debug(TAG, "socket buffers have %u bytes", bytes);
	else
		log_warn(TAG, "the VM's socket keeps its small buffers: %s",
			vmnet_broker_strerror(status));
	return 0;
}

int attach_through_helper(vmnet_broker_t *broker, const struct run_options *options,
	struct attachment *attachment, char *error)
{
	const char *name = options->interface.network;
	struct vmnet_broker_network_options network = joining_network(&options->interface);
	vmnet_broker_status_t status;

	attachment->attach = options->attach;
	status = name ? vmnet_broker_acquire(broker, name, NULL)
		      : vmnet_broker_acquire_by_options(broker, &network, NULL);
	if (status != VMNET_BROKER_SUCCESS)
		return describe_failure(broker, options, status, error);
	if (options->attach != RUN_ATTACH_VHOST_USER)
		return make_sockets(broker, options, attachment, error);
	attachment->vhost_user_queues = run_options_queues(options);
	return 0;
}

/* A TAP hands out one frame a read: there are no batches as the helper has them. */
static int make_line(const struct vmnet_broker_interface *interface,
	const struct interface_options *options, char **ret_line)
{
	struct startline line = joining_startline(options, interface);

	line.read_max_packets = 1;
	line.write_max_packets = 1;
	return startline_to_text(&line, ret_line);
}

static void take_fds(struct vmnet_broker_interface *interface, struct attachment *attachment)
{
	for (size_t i = 0; i < interface->queues_count; i++)
		attachment->fds[i] = take_fd(&interface->queues[i]);
	attachment->fds_count = interface->queues_count;
	for (size_t i = 0; i < interface->vhosts_count; i++)
		attachment->vhosts[i] = take_fd(&interface->vhosts[i]);
	attachment->vhosts_count = interface->vhosts_count;
}

int attach_directly(vmnet_broker_t *broker, const struct run_options *options,
	struct attachment *attachment, char *error)
{
	struct vmnet_broker_network_options network = joining_network(&options->interface);
	struct vmnet_broker_interface_options wanted =
		joining_interface(&options->interface, &network);
	struct vmnet_broker_interface interface;
	vmnet_broker_status_t status;
	int result;

	attachment->attach = options->attach;
	wanted.named = options->attach == RUN_ATTACH_TAP;
	/* A TAP with IFF_MULTI_QUEUE is refused by VM programs that were given one fd. */
	wanted.queues = run_options_queues(options) > 1 ? options->queues : 0;
	wanted.vhost = !wanted.named;
	status = vmnet_broker_create_interface(
		broker, options->interface.network, &wanted, &interface);
	if (status != VMNET_BROKER_SUCCESS)
		return describe_failure(broker, options, status, error);
	if (interface.locked)
		log_info(TAG,
			"network \"%s\" takes frames from VMNET_MAC_ADDRESS and VMNET_ADDRESS "
			"only: the VM must use both",
			interface.network.name);
	joining_keep_namespace(&interface);
	take_fds(&interface, attachment);
	attachment->held_by_connection = interface.held_by_connection;
	result = make_line(&interface, &options->interface, &attachment->line);
	if (result == 0)
		result = attachment_read_line(attachment, attachment->line);
	if (result < 0)
		snprintf(error, ATTACH_ERROR_SIZE,
			"the broker's answer is not understood (%s): it may be of another version",
			strerror(-result));
	return result;
}
