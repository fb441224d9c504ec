#include "helper/port-tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

struct port_tap {
	struct port port;
	size_t frame_max;
};

static void free_tap(struct port_tap *tap)
{
	fd_close(tap->port.fd);
	free(tap);
}
DEFINE_CLEANUP(struct port_tap, free_tap)

static int tap_read_batch(
	struct port *port, struct batch *batch, struct direction_counters *counters)
{
	struct port_tap *tap = (struct port_tap *)port;
	size_t taken = 0;

	batch->count = 0;
	while (taken < BATCH_FRAMES) {
		struct frame *frame = &batch->frames[batch->count];
		struct iovec parts[] = {
			{.iov_base = &frame->header, .iov_len = sizeof(frame->header)},
			{.iov_base = frame->data, .iov_len = batch->frame_capacity},
		};
		ssize_t size = readv(port->fd, parts, array_length(parts));

		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0)
			return errno == EAGAIN ? 0 : -errno;
		taken++;
		frame->length = (size_t)size - sizeof(frame->header);
		/* The kernel cuts a frame to the buffer without a word, so the buffer is one byte
		 * longer than any good frame. */
		if (frame->length < FRAME_HEADER_SIZE || frame->length > tap->frame_max)
			counter_add(&counters->drops, 1);
		else
			batch->count++;
	}
	return 0;
}

/* Whatever one frame ran into (the kernel dislikes it, the link is down, memory is short), the next
 * may pass; only a deleted TAP or a fd that is none will never work again. */
static bool is_fatal(int error)
{
	return error == EBADFD || error == EBADF;
}

static ssize_t tap_write_batch(struct port *port, const struct batch *batch, size_t first,
	struct direction_counters *counters)
{
	uint64_t packets = 0;
	uint64_t bytes = 0;
	size_t i = first;
	int error = 0;

	while (i < batch->count && !is_fatal(error)) {
		struct frame frame = batch->frames[i];
		struct iovec parts[] = {
			{.iov_base = &frame.header, .iov_len = sizeof(frame.header)},
			{.iov_base = frame.data, .iov_len = frame.length},
		};
		ssize_t size = writev(port->fd, parts, array_length(parts));

		error = size < 0 ? errno : 0;
		if (error == EINTR)
			continue;
		packets += error == 0;
		bytes += error == 0 ? frame.length : 0;
		i++;
	}
	counter_add(&counters->packets, packets);
	counter_add(&counters->bytes, bytes);
	counter_add(&counters->drops, i - first - packets);
	return is_fatal(error) ? -error : (ssize_t)(i - first);
}

static const struct port_operations tap_operations = {
	.name = "TAP",
	.read_batch = tap_read_batch,
	.write_batch = tap_write_batch,
};

static int set_up_tap(int fd)
{
	int header_size = sizeof(struct virtio_net_hdr_mrg_rxbuf);
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (ioctl(fd, TUNSETVNETHDRSZ, &header_size) < 0)
		return -errno;
	return ioctl(fd, TUNSETOFFLOAD, 0ul) < 0 ? -errno : 0;
}

int port_tap_open(int tap_fd, size_t frame_max, struct port **ret_port)
{
	cleanup_with(free_tap) struct port_tap *tap = calloc(1, sizeof(*tap));
	int error;

	if (!tap) {
		fd_close(tap_fd);
		return -ENOMEM;
	}
	tap->port.operations = &tap_operations;
	tap->port.fd = tap_fd;
	tap->frame_max = frame_max;
	error = set_up_tap(tap_fd);
	if (error)
		return error;
	*ret_port = &take_ptr(tap)->port;
	return 0;
}

void port_tap_close(struct port *port)
{
	if (port)
		free_tap((struct port_tap *)port);
}
