#include "endpoint.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define HEADER_SIZE sizeof(struct virtio_net_hdr_mrg_rxbuf)
#define LENGTH_SIZE sizeof(uint32_t)
/* A stream is read in pieces of this: less and the calls cost more than the copies. */
#define STREAM_READ_MIN ((size_t)256 * 1024)

int burst_init(struct burst *burst, size_t frame_max)
{
	size_t size;

	memset(burst, 0, sizeof(*burst));
	burst->slot_size = (LENGTH_SIZE + HEADER_SIZE + frame_max + 63) / 64 * 64;
	size = burst->slot_size * BURST_FRAMES;
	burst->memory = malloc(size < STREAM_READ_MIN ? STREAM_READ_MIN : size);
	return burst->memory ? 0 : -ENOMEM;
}

void burst_done(struct burst *burst)
{
	free(burst->memory);
	memset(burst, 0, sizeof(*burst));
}

static size_t memory_size(const struct burst *burst)
{
	size_t size = burst->slot_size * BURST_FRAMES;

	return size < STREAM_READ_MIN ? STREAM_READ_MIN : size;
}

int endpoint_open_tap(const char *name, bool has_offloads, struct endpoint *ret_endpoint)
{
	cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	const int header_size = HEADER_SIZE;
	unsigned long offloads = has_offloads ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0;

	if (fd < 0)
		return -errno;
	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header_size) < 0 ||
		ioctl(fd, TUNSETOFFLOAD, offloads) < 0)
		return -errno;
	*ret_endpoint = (struct endpoint){
		.fd = take_fd(&fd),
		.kind = ENDPOINT_TAP,
		.has_header = true,
	};
	return 0;
}

static int endpoint_from_tap(int fd, struct endpoint *ret_endpoint)
{
	const int header_size = HEADER_SIZE;

	if (ioctl(fd, TUNSETVNETHDRSZ, &header_size) < 0)
		return -errno;
	*ret_endpoint = (struct endpoint){.fd = fd, .kind = ENDPOINT_TAP, .has_header = true};
	return 0;
}

int endpoint_from_fd(int fd, bool has_header, struct endpoint *ret_endpoint)
{
	int type;
	socklen_t size = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return errno == ENOTSOCK ? endpoint_from_tap(fd, ret_endpoint) : -errno;
	if (type != SOCK_DGRAM && type != SOCK_SEQPACKET && type != SOCK_STREAM)
		return -EPROTOTYPE;
	*ret_endpoint = (struct endpoint){
		.fd = fd,
		.kind = type == SOCK_STREAM ? ENDPOINT_STREAM : ENDPOINT_DATAGRAM,
		.has_header = has_header,
	};
	return 0;
}

static int wait_for_event(int fd, short event)
{
	struct pollfd poll_fd = {.fd = fd, .events = event};

	return poll(&poll_fd, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

static void prepare_slots(struct burst *burst)
{
	for (size_t i = 0; i < BURST_FRAMES; i++)
		burst->frames[i].data = burst->memory + i * burst->slot_size;
	burst->count = 0;
}

static int read_tap(const struct endpoint *endpoint, struct burst *burst)
{
	prepare_slots(burst);
	while (burst->count < BURST_FRAMES) {
		struct burst_frame *frame = &burst->frames[burst->count];
		struct iovec parts[] = {
			{&frame->header, sizeof(frame->header)},
			{frame->data, burst->slot_size},
		};
		ssize_t size = readv(endpoint->fd, parts, 2);
		int error = size < 0 ? -errno : 0;

		if (error == -EAGAIN && burst->count > 0)
			return 0;
		if (error == -EAGAIN)
			error = wait_for_event(endpoint->fd, POLLIN);
		else if (size > (ssize_t)HEADER_SIZE)
			burst->frames[burst->count++].length = (size_t)size - HEADER_SIZE;
		if (error && error != -EINTR)
			return error;
	}
	return 0;
}

static int read_datagrams(const struct endpoint *endpoint, struct burst *burst)
{
	struct mmsghdr messages[BURST_FRAMES];
	struct iovec parts[BURST_FRAMES][2];
	size_t header_size = endpoint->has_header ? HEADER_SIZE : 0;
	int received;

	prepare_slots(burst);
	memset(messages, 0, sizeof(messages));
	for (size_t i = 0; i < BURST_FRAMES; i++) {
		parts[i][0] = (struct iovec){&burst->frames[i].header, header_size};
		parts[i][1] = (struct iovec){burst->frames[i].data, burst->slot_size};
		messages[i].msg_hdr.msg_iov = parts[i];
		messages[i].msg_hdr.msg_iovlen = 2;
	}
	received = recvmmsg(endpoint->fd, messages, BURST_FRAMES, MSG_WAITFORONE, NULL);
	if (received < 0)
		return errno == EINTR ? 0 : -errno;
	if (messages[0].msg_len == 0)
		return -ECONNRESET;
	for (int i = 0; i < received; i++) {
		struct burst_frame *frame = &burst->frames[burst->count];

		if (messages[i].msg_len <= header_size)
			continue;
		if (!endpoint->has_header)
			memset(&frame->header, 0, sizeof(frame->header));
		frame->data = burst->frames[i].data;
		frame->header = burst->frames[i].header;
		frame->length = messages[i].msg_len - header_size;
		burst->count++;
	}
	return 0;
}

/* Hands out what is held, without copying. */
static int parse_held(const struct endpoint *endpoint, struct burst *burst)
{
	size_t header_size = endpoint->has_header ? HEADER_SIZE : 0;

	while (burst->count < BURST_FRAMES &&
		burst->held_end - burst->held_start > LENGTH_SIZE + header_size) {
		struct burst_frame *frame = &burst->frames[burst->count];
		uint8_t *start = burst->memory + burst->held_start;
		uint32_t length;

		memcpy(&length, start, LENGTH_SIZE);
		length = ntohl(length);
		if (length <= header_size || length + LENGTH_SIZE > burst->slot_size)
			return -EPROTO;
		if (burst->held_start + LENGTH_SIZE + length > burst->held_end)
			return 0;
		memset(&frame->header, 0, sizeof(frame->header));
		memcpy(&frame->header, start + LENGTH_SIZE, header_size);
		frame->data = start + LENGTH_SIZE + header_size;
		frame->length = length - header_size;
		burst->held_start += LENGTH_SIZE + length;
		burst->count++;
	}
	return 0;
}

static int read_stream(const struct endpoint *endpoint, struct burst *burst)
{
	int error;

	burst->count = 0;
	error = parse_held(endpoint, burst);
	while (!error && burst->count == 0) {
		size_t held = burst->held_end - burst->held_start;
		ssize_t size;

		memmove(burst->memory, burst->memory + burst->held_start, held);
		burst->held_start = 0;
		burst->held_end = held;
		size = recv(endpoint->fd, burst->memory + held, memory_size(burst) - held, 0);
		if (size < 0)
			return errno == EINTR ? 0 : -errno;
		if (size == 0)
			return -ECONNRESET;
		burst->held_end += (size_t)size;
		error = parse_held(endpoint, burst);
	}
	return error;
}

int endpoint_read(const struct endpoint *endpoint, struct burst *burst)
{
	switch (endpoint->kind) {
	case ENDPOINT_TAP:
		return read_tap(endpoint, burst);
	case ENDPOINT_DATAGRAM:
		return read_datagrams(endpoint, burst);
	default:
		return read_stream(endpoint, burst);
	}
}

static int write_tap(const struct endpoint *endpoint, struct burst *burst)
{
	for (size_t i = 0; i < burst->count; i++) {
		struct burst_frame *frame = &burst->frames[i];
		struct iovec parts[] = {
			{&frame->header, sizeof(frame->header)},
			{frame->data, frame->length},
		};

		if (writev(endpoint->fd, parts, 2) < 0 && (errno == EBADF || errno == EBADFD))
			return -errno;
	}
	return 0;
}

static int write_datagrams(const struct endpoint *endpoint, struct burst *burst)
{
	struct mmsghdr messages[BURST_FRAMES];
	struct iovec parts[BURST_FRAMES][2];
	size_t header_size = endpoint->has_header ? HEADER_SIZE : 0;

	memset(messages, 0, sizeof(messages));
	for (size_t i = 0; i < burst->count; i++) {
		struct burst_frame *frame = &burst->frames[i];

		parts[i][0] = (struct iovec){&frame->header, header_size};
		parts[i][1] = (struct iovec){frame->data, frame->length};
		messages[i].msg_hdr.msg_iov = parts[i];
		messages[i].msg_hdr.msg_iovlen = 2;
	}
	for (size_t written = 0; written < burst->count;) {
		int sent = sendmmsg(endpoint->fd, messages + written,
			(unsigned int)(burst->count - written), MSG_NOSIGNAL);

		if (sent < 0 && errno == ENOBUFS)
			wait_for_event(endpoint->fd, POLLOUT);
		else if (sent < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		written += sent > 0 ? (size_t)sent : 0;
	}
	return 0;
}

/* Steps over size bytes that were written. Returns how many parts are through. */
static size_t skip_written(struct iovec *parts, size_t count, size_t size)
{
	size_t done = 0;

	while (done < count && size >= parts[done].iov_len)
		size -= parts[done++].iov_len;
	if (done < count) {
		parts[done].iov_base = (uint8_t *)parts[done].iov_base + size;
		parts[done].iov_len -= size;
	}
	return done;
}

static int write_stream(const struct endpoint *endpoint, struct burst *burst)
{
	struct iovec parts[2 * BURST_FRAMES];
	uint8_t prefixes[BURST_FRAMES][LENGTH_SIZE + HEADER_SIZE];
	size_t header_size = endpoint->has_header ? HEADER_SIZE : 0;
	size_t count = 2 * burst->count;

	for (size_t i = 0; i < burst->count; i++) {
		struct burst_frame *frame = &burst->frames[i];
		uint32_t length = htonl((uint32_t)(header_size + frame->length));

		memcpy(prefixes[i], &length, LENGTH_SIZE);
		memcpy(prefixes[i] + LENGTH_SIZE, &frame->header, header_size);
		parts[2 * i] = (struct iovec){prefixes[i], LENGTH_SIZE + header_size};
		parts[2 * i + 1] = (struct iovec){frame->data, frame->length};
	}
	for (size_t done = 0; done < count;) {
		struct msghdr message = {.msg_iov = parts + done, .msg_iovlen = count - done};
		ssize_t size = sendmsg(endpoint->fd, &message, MSG_NOSIGNAL);

		if (size < 0 && errno != EINTR)
			return -errno;
		if (size > 0)
			done += skip_written(parts + done, count - done, (size_t)size);
	}
	return 0;
}

int endpoint_write(const struct endpoint *endpoint, struct burst *burst)
{
	switch (endpoint->kind) {
	case ENDPOINT_TAP:
		return write_tap(endpoint, burst);
	case ENDPOINT_DATAGRAM:
		return write_datagrams(endpoint, burst);
	default:
		return write_stream(endpoint, burst);
	}
}
