#include "helper/port-dgram.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

/*
 * The search for the sending process. Frames that were queued before SO_PASSCRED was set carry no
 * credentials, so a frame without a pid means nothing until the queue was empty once.
 */
enum search {
	SEARCH_OFF,     /* nobody asked, or the answer is there; find_sender leaves it */
	SEARCH_BEGUN,   /* old frames may be queued; the reader leaves it */
	SEARCH_SETTLED, /* every frame has its credentials; the reader leaves it */
};

/* What comes beside a message while senders matter. */
struct companion {
	struct sockaddr_un name;
	alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct ucred))];
};

/* Fifteen of the largest frames, to keep the helper small; other sizes were not measured. */
#define MEMORY_SIZE_MAX (1u << 20)

struct port_dgram {
	struct port port;
	size_t frame_max;
	size_t header_size; /* 0, or that of the virtio-net header before each frame */
	size_t slot_size;   /* bytes between two frames in the batch's memory */
	size_t slot_count;
	int sender_event;
	_Atomic int search; /* enum search */
	_Atomic pid_t sender;

	/* The reading thread's. */
	struct mmsghdr incoming[BATCH_FRAMES];
	struct iovec incoming_parts[BATCH_FRAMES][2]; /* header, frame */
	struct companion companions[BATCH_FRAMES];
	bool has_companions;
	bool has_strangers; /* others' messages may be in the queue */
	struct sockaddr_un peer;
	socklen_t peer_size;

	/* The writing thread's. */
	alignas(64) struct mmsghdr outgoing[BATCH_FRAMES];
};

static void free_dgram(struct port_dgram *dgram)
{
	fd_close(dgram->port.fd);
	fd_close(dgram->sender_event);
	free(dgram);
}
DEFINE_CLEANUP(struct port_dgram, free_dgram)

static enum search current_search(const struct port_dgram *dgram)
{
	return (enum search)atomic_load_explicit(&dgram->search, memory_order_acquire);
}

static void end_search(struct port_dgram *dgram, pid_t sender)
{
	const int off = 0;

	setsockopt(dgram->port.fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
	atomic_store(&dgram->sender, sender);
	atomic_store(&dgram->search, SEARCH_OFF);
	eventfd_write(dgram->sender_event, 1);
}

static void look_at_sender(struct port_dgram *dgram, struct msghdr *message)
{
	enum search search = current_search(dgram);
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	struct ucred credentials = {0};

	if (search == SEARCH_OFF)
		return;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS)
		memcpy(&credentials, CMSG_DATA(header), sizeof(credentials));
	if (credentials.pid > 0 || search == SEARCH_SETTLED)
		end_search(dgram, credentials.pid);
}

static bool is_from_peer(const struct port_dgram *dgram, const struct msghdr *message)
{
	return message->msg_namelen == dgram->peer_size &&
	       memcmp(message->msg_name, &dgram->peer, dgram->peer_size) == 0;
}

/*
 * Once the queue was empty, all that comes was sent to a socket that takes only its peer's
 * messages, and, if the search had begun before, with credentials.
 */
static void note_empty_queue(struct port_dgram *dgram, enum search search_before)
{
	dgram->has_strangers = false;
	if (search_before == SEARCH_BEGUN && current_search(dgram) == SEARCH_BEGUN)
		atomic_store(&dgram->search, SEARCH_SETTLED);
}

static void prepare_incoming(struct port_dgram *dgram, struct batch *batch, enum search search)
{
	bool wants_companions = dgram->has_strangers || search != SEARCH_OFF;

	for (size_t i = 0; i < dgram->slot_count; i++) {
		struct iovec *parts = dgram->incoming_parts[i];

		parts[0] = (struct iovec){&batch->frames[i].header, dgram->header_size};
		parts[1] = (struct iovec){batch->memory + i * dgram->slot_size, dgram->frame_max};
	}
	if (!wants_companions && !dgram->has_companions)
		return;
	for (size_t i = 0; i < dgram->slot_count; i++) {
		struct msghdr *message = &dgram->incoming[i].msg_hdr;
		struct companion *companion = &dgram->companions[i];

		message->msg_name = wants_companions ? &companion->name : NULL;
		message->msg_namelen = wants_companions ? sizeof(companion->name) : 0;
		/* The credentials fill it. Without them a VM could put fds of its own there. */
		message->msg_control = search != SEARCH_OFF ? companion->control : NULL;
		message->msg_controllen = search != SEARCH_OFF ? sizeof(companion->control) : 0;
	}
	dgram->has_companions = wants_companions;
}

/*
 * To be asked when nothing came, or an empty message: that is no end by itself, but after the end
 * of a SOCK_SEQPACKET nothing else comes, and of a socket that its former owner shut down not even
 * that, while poll(2) calls it readable for ever.
 */
static bool has_hung_up(const struct port_dgram *dgram)
{
	struct pollfd fd = {.fd = dgram->port.fd, .events = POLLRDHUP};

	return poll(&fd, 1, 0) == 1;
}

static bool is_passable(struct port_dgram *dgram, struct mmsghdr *message)
{
	if (message->msg_len < dgram->header_size + FRAME_HEADER_SIZE ||
		message->msg_hdr.msg_flags & MSG_TRUNC)
		return false;
	if (!dgram->has_companions)
		return true;
	if (dgram->has_strangers && !is_from_peer(dgram, &message->msg_hdr))
		return false;
	look_at_sender(dgram, &message->msg_hdr);
	return true;
}

static int on_receive_error(int error)
{
	switch (error) {
	case EINTR:
	case ENOMEM:
	case ENOBUFS:
		return 0;
	case ECONNREFUSED:
	case ENOTCONN:
		return -ECONNRESET;
	default:
		return -error;
	}
}

static const struct virtio_net_hdr_mrg_rxbuf no_offloads;

/* Moves what can be passed on to the front of the batch. */
static int sort_incoming(struct port_dgram *dgram, int received, struct batch *batch,
	struct direction_counters *counters)
{
	for (int i = 0; i < received; i++) {
		struct frame *frame = &batch->frames[batch->count];

		if (dgram->incoming[i].msg_len == 0 && has_hung_up(dgram))
			return batch->count > 0 ? 0 : -ECONNRESET;
		if (!is_passable(dgram, &dgram->incoming[i])) {
			counter_add(&counters->drops, 1);
			continue;
		}
		frame->data = dgram->incoming_parts[i][1].iov_base;
		frame->length = dgram->incoming[i].msg_len - dgram->header_size;
		frame->header = dgram->header_size ? batch->frames[i].header : no_offloads;
		batch->count++;
	}
	return 0;
}

static int dgram_read_batch(
	struct port *port, struct batch *batch, struct direction_counters *counters)
{
	struct port_dgram *dgram = (struct port_dgram *)port;
	enum search search_before = current_search(dgram);
	int received;
	int error;

	batch->count = 0;
	prepare_incoming(dgram, batch, search_before);
	received = recvmmsg(
		port->fd, dgram->incoming, (unsigned int)dgram->slot_count, MSG_DONTWAIT, NULL);
	error = received < 0 ? errno : 0;
	if (error && error != EAGAIN)
		return on_receive_error(error);
	if (received > 0) {
		counter_add(received > 1 ? &counters->fast : &counters->slow, 1);
		error = sort_incoming(dgram, received, batch, counters);
	}
	if (received < (int)dgram->slot_count && dgram->has_companions)
		note_empty_queue(dgram, search_before);
	if (error == EAGAIN)
		return has_hung_up(dgram) ? -ECONNRESET : 0;
	return error ? error : received == (int)dgram->slot_count;
}

/* What is said of a whole queue and of a VM that has gone concerns all frames; anything else only
 * the first. */
static ssize_t on_send_error(int error, struct direction_counters *counters)
{
	switch (error) {
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
	case EINTR:
		return 0;
	case ECONNREFUSED: /* its socket is closed */
	case ENOTCONN:     /* the same, said a second time */
	case ECONNRESET:
	case EPIPE:
	case EDESTADDRREQ:
	case EPERM: /* it has connected its socket to somebody else */
		return -ECONNRESET;
	case EBADF:
		return -error;
	default:
		counter_add(&counters->drops, 1);
		return 1;
	}
}

static void prepare_outgoing(
	const struct port_dgram *dgram, struct gathered_frame *frame, struct mmsghdr *message)
{
	frame->parts[0] = (struct iovec){&frame->header, dgram->header_size};
	message->msg_hdr.msg_iov = dgram->header_size ? frame->parts : frame->parts + 1;
	message->msg_hdr.msg_iovlen = frame->part_count - (dgram->header_size ? 0 : 1);
}

static ssize_t dgram_write_batch(
	struct port *port, struct gather *gather, size_t first, struct direction_counters *counters)
{
	struct port_dgram *dgram = (struct port_dgram *)port;
	size_t count = gather->count - first;
	uint64_t bytes = 0;
	int sent;

	for (size_t i = 0; i < count; i++)
		prepare_outgoing(dgram, &gather->frames[first + i], &dgram->outgoing[i]);
	sent = sendmmsg(
		port->fd, dgram->outgoing, (unsigned int)count, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0)
		return on_send_error(errno, counters);
	for (int i = 0; i < sent; i++)
		bytes += gather->frames[first + (size_t)i].length;
	counter_add(&counters->packets, (uint64_t)sent);
	counter_add(&counters->bytes, bytes);
	counter_add(sent > 1 ? &counters->fast : &counters->slow, 1);
	return sent;
}

static const struct port_operations dgram_operations = {
	.name = "datagram socket",
	.read_batch = dgram_read_batch,
	.write_batch = dgram_write_batch,
};

static int learn_peer(struct port_dgram *dgram)
{
	socklen_t size = sizeof(int);
	int type;

	if (getsockopt(dgram->port.fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return -errno;
	dgram->peer_size = sizeof(dgram->peer);
	if (getpeername(dgram->port.fd, (struct sockaddr *)&dgram->peer, &dgram->peer_size) < 0)
		return -errno;
	/* Only a socket that has a name could be sent to before it was connected. */
	dgram->has_strangers = type == SOCK_DGRAM && dgram->peer_size > sizeof(sa_family_t);
	return 0;
}

static void lay_out_slots(struct port_dgram *dgram)
{
	dgram->slot_size = (dgram->frame_max + 63) & ~(size_t)63;
	dgram->slot_count = MEMORY_SIZE_MAX / dgram->slot_size;
	if (dgram->slot_count > BATCH_FRAMES)
		dgram->slot_count = BATCH_FRAMES;
	dgram->port.memory_size = dgram->slot_size * dgram->slot_count;
}

int port_dgram_open(int socket, size_t frame_max, bool has_header, struct port **ret_port)
{
	cleanup_with(free_dgram) struct port_dgram *dgram = NULL;
	int error;

	if (posix_memalign((void **)&dgram, alignof(struct port_dgram), sizeof(*dgram)) != 0) {
		fd_close(socket);
		return -ENOMEM;
	}
	memset(dgram, 0, sizeof(*dgram));
	dgram->port.operations = &dgram_operations;
	dgram->port.fd = socket;
	dgram->frame_max = frame_max;
	dgram->header_size = has_header ? sizeof(struct virtio_net_hdr_mrg_rxbuf) : 0;
	lay_out_slots(dgram);
	for (size_t i = 0; i < BATCH_FRAMES; i++) {
		dgram->incoming[i].msg_hdr.msg_iov = dgram->incoming_parts[i];
		dgram->incoming[i].msg_hdr.msg_iovlen = 2;
	}
	dgram->sender_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (dgram->sender_event < 0)
		return -errno;
	error = learn_peer(dgram);
	if (error)
		return error;
	*ret_port = &take_ptr(dgram)->port;
	return 0;
}

void port_dgram_close(struct port *port)
{
	if (port)
		free_dgram((struct port_dgram *)port);
}

int port_dgram_find_sender(struct port *port)
{
	struct port_dgram *dgram = (struct port_dgram *)port;
	const int on = 1;

	if (setsockopt(port->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		return -errno;
	atomic_store(&dgram->search, SEARCH_BEGUN);
	return 0;
}

int port_dgram_sender_event(const struct port *port)
{
	return ((const struct port_dgram *)port)->sender_event;
}

pid_t port_dgram_sender(const struct port *port)
{
	return atomic_load(&((const struct port_dgram *)port)->sender);
}
