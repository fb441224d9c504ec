#include "helper/port-tap.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

/*
 * What one read may need: the longest frame, and a byte more, by which a longer one is noticed,
 * because the kernel cuts a frame to the buffer without a word.
 */
#define READ_SIZE_MAX (FRAME_SIZE_MAX + 1)
/* Frames lie close together, each at a multiple of this, so that small ones stay in the cache. */
#define FRAME_ALIGNMENT 64
/*
 * Room for seven large frames. 96, 192, 256 KiB and 1 MiB cost the same, within the 15 % by which
 * the same program differs from itself in interleaved runs on two busy cores: a wake-up seldom
 * finds more than one large frame. Not aligned to a page on purpose: where a buffer begins at the
 * very start of one, AMD's rep movsb (family 25) makes a TAP's 64 KiB read 20.6 us long instead
 * of 3.2.
 */
#define MEMORY_SIZE (512u << 10)

/* <linux/if_tun.h> of older systems lacks them. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#define TCP_OFFLOADS (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

struct port_tap {
	struct port port;
};

static void free_tap(struct port_tap *tap)
{
	fd_close(tap->port.fd);
	free(tap);
}
DEFINE_CLEANUP(struct port_tap, free_tap)

static size_t align(size_t offset)
{
	return (offset + FRAME_ALIGNMENT - 1) & ~(size_t)(FRAME_ALIGNMENT - 1);
}

/*
 * Returns 1 when a frame was read, good or not, else 0 or negative errno. Where the virtio-net
 * header has no word for how a frame is to be cut, the kernel says EINVAL, and the frame is lost
 * (tun_put_user, "unexpected GSO type").
 */
static int read_frame(struct port *port, struct frame *frame)
{
	struct iovec parts[] = {
		{.iov_base = &frame->header, .iov_len = sizeof(frame->header)},
		{.iov_base = frame->data, .iov_len = READ_SIZE_MAX},
	};
	ssize_t size;

	do {
		size = readv(port->fd, parts, array_length(parts));
	} while (size < 0 && errno == EINTR);
	if (size < 0 && errno != EINVAL)
		return errno == EAGAIN ? 0 : -errno;
	frame->length = size < 0 ? 0 : (size_t)size - sizeof(frame->header);
	return 1;
}

static bool is_passable(const struct frame *frame)
{
	return frame->length >= FRAME_HEADER_SIZE && frame->length <= FRAME_SIZE_MAX;
}

static int tap_read_batch(
	struct port *port, struct batch *batch, struct direction_counters *counters)
{
	size_t used = 0;

	batch->count = 0;
	for (size_t reads = 0; reads < BATCH_FRAMES && batch->memory_size - used >= READ_SIZE_MAX;
		reads++) {
		struct frame *frame = &batch->frames[batch->count];
		int result;

		frame->data = batch->memory + used;
		result = read_frame(port, frame);
		if (result <= 0)
			return result;
		if (is_passable(frame)) {
			used = align(used + frame->length);
			batch->count++;
		} else {
			counter_add(&counters->drops, 1);
		}
	}
	return 1;
}

/* Whatever one frame ran into (the kernel dislikes it, the link is down, memory is short), the next
 * may pass; only a deleted TAP or a fd that is none will never work again. */
static bool is_fatal(int error)
{
	return error == EBADFD || error == EBADF;
}

/*
 * Looks for a stop before each frame: where an interface of the network has no offloads, the kernel
 * cuts a large frame within the call. 64 KiB for segments of one byte, which --vnet-hdr lets a
 * guest ask for, took 70 ms (Linux 6.18).
 */
static ssize_t tap_write_batch(
	struct port *port, struct gather *gather, size_t first, struct direction_counters *counters)
{
	uint64_t packets = 0;
	uint64_t bytes = 0;
	uint64_t drops = 0;
	size_t i = first;
	int error = 0;

	while (i < gather->count && !is_fatal(error) && !port_is_stopping(port)) {
		struct gathered_frame *frame = &gather->frames[i];
		ssize_t size;

		frame->parts[0] = (struct iovec){&frame->header, sizeof(frame->header)};
		size = writev(port->fd, frame->parts, (int)frame->part_count);
		error = size < 0 ? errno : 0;
		if (error == EINTR)
			continue;
		packets += error ? 0 : frame->frame_count;
		bytes += error ? 0 : frame->length;
		drops += error ? frame->frame_count : 0;
		i++;
	}
	counter_add(&counters->packets, packets);
	counter_add(&counters->bytes, bytes);
	counter_add(&counters->drops, drops);
	return is_fatal(error) ? -error : (ssize_t)(i - first);
}

static const struct port_operations tap_operations = {
	.name = "TAP",
	.read_batch = tap_read_batch,
	.write_batch = tap_write_batch,
};

/* Segmentation of UDP is left to the kernel where the VM's side has no header to tell it by, or may
 * not know it. */
static const unsigned int wanted_offloads[] = {
	[OFFLOAD_NONE] = TCP_OFFLOADS | TUN_F_USO4 | TUN_F_USO6,
	[OFFLOAD_RAW] = TCP_OFFLOADS,
	[OFFLOAD_VNET_HDR] = TCP_OFFLOADS,
};
static_assert(array_length(wanted_offloads) == OFFLOAD_MODE_COUNT, "offloads of each mode");

static int set_up_tap(int fd, unsigned int offloads)
{
	int header_size = sizeof(struct virtio_net_hdr_mrg_rxbuf);
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (ioctl(fd, TUNSETVNETHDRSZ, &header_size) < 0)
		return -errno;
	if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads) == 0)
		return 0;
	/* Linux before 6.2 knows no TUN_F_USO and refuses all. */
	offloads &= ~(unsigned int)(TUN_F_USO4 | TUN_F_USO6);
	return ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads) < 0 ? -errno : 0;
}

int port_tap_open(int tap_fd, enum offload_mode mode, struct port **ret_port)
{
	cleanup_with(free_tap) struct port_tap *tap = calloc(1, sizeof(*tap));
	int error;

	if (!tap) {
		fd_close(tap_fd);
		return -ENOMEM;
	}
	tap->port.operations = &tap_operations;
	tap->port.fd = tap_fd;
	tap->port.memory_size = MEMORY_SIZE;
	error = set_up_tap(tap_fd, wanted_offloads[mode]);
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

bool port_tap_is_there(int tap_fd)
{
	struct ifreq request;

	return ioctl(tap_fd, TUNGETIFF, &request) == 0;
}
