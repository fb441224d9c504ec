#include "helper/vhost-user-device.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum watched_fd {
	WATCHED_ENDED,
	WATCHED_CONNECTION,
	WATCHED_LISTENER,
	WATCHED_TAP,
	WATCHED_COUNT,
};
static_assert(WATCHED_COUNT == VHOST_USER_FDS, "one entry per fd");

DEFINE_CLEANUP(struct vhost_user, vhost_user_close)

void vhost_user_pause_all(struct vhost_user *device)
{
	for (size_t i = 0; i < 2 * device->queue_pairs; i++)
		vhost_user_queue_pause(&device->queues[i]);
}

static bool is_used(const struct vhost_user_queue *queue)
{
	return queue->is_enabled && queue->kick >= 0;
}

/*
 * Attaches a TAP's queue when the guest uses the pair, and detaches it when not. The first always
 * stays, as a TAP can't be asked or told anything through a detached one.
 */
static int settle_tap_queue(struct vhost_user *device, size_t pair)
{
	bool shall_be_attached =
		is_used(&device->queues[2 * pair]) || is_used(&device->queues[2 * pair + 1]);
	struct ifreq request = {
		.ifr_flags = shall_be_attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE,
	};

	if (pair == 0 || shall_be_attached == device->is_attached[pair])
		return 0;
	if (ioctl(device->taps[pair], TUNSETQUEUE, &request) < 0)
		return -errno;
	device->is_attached[pair] = shall_be_attached;
	return 0;
}

int vhost_user_resume_all(struct vhost_user *device)
{
	int error;

	for (size_t pair = 0; pair < device->queue_pairs; pair++) {
		error = settle_tap_queue(device, pair);
		if (error)
			return error;
	}
	for (size_t i = 0; i < 2 * device->queue_pairs; i++) {
		error = vhost_user_queue_resume(&device->queues[i], &device->memory);
		if (error)
			return error;
	}
	return 0;
}

/* Whether the kernel knows USO, and leaves the TAP without any offload. */
static int probe_tap(int tap, bool *ret_has_uso)
{
	unsigned long most = vhost_user_tap_offloads(vhost_user_offer_features(1, true));
	bool has_uso = ioctl(tap, TUNSETOFFLOAD, most) == 0;

	if (ioctl(tap, TUNSETOFFLOAD, 0ul) < 0)
		return -errno;
	*ret_has_uso = has_uso;
	return 0;
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int set_up_taps(struct vhost_user *device)
{
	bool has_uso = false;
	int error = 0;

	for (size_t pair = 0; pair < device->queue_pairs && !error; pair++)
		error = set_nonblocking(device->taps[pair]);
	if (error)
		return error;
	error = probe_tap(device->taps[0], &has_uso);
	if (error)
		return error;
	device->offered_features = vhost_user_offer_features(device->queue_pairs, has_uso);
	error = vhost_user_apply_features(device, 0);
	return error ? error : vhost_user_resume_all(device);
}

static int set_up_socket(struct vhost_user *device, int socket)
{
	int is_listening = 0;
	socklen_t size = sizeof(is_listening);
	int error = 0;

	if (getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) < 0)
		error = -errno;
	else
		error = set_nonblocking(socket);
	if (is_listening)
		device->listener = socket;
	else
		device->connection = socket;
	return error;
}

static int set_up_queues(struct vhost_user *device)
{
	for (size_t i = 0; i < 2 * device->queue_pairs; i++) {
		int error = vhost_user_queue_init(&device->queues[i],
			i % 2 == 0 ? DIRECTION_HOST_TO_VM : DIRECTION_VM_TO_HOST,
			device->taps[i / 2], device->ended_event);

		if (error)
			return error;
	}
	return 0;
}

static struct vhost_user *new_device(void)
{
	struct vhost_user *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	device->listener = device->connection = device->ended_event = -1;
	fd_list_init(&device->message.fds);
	for (size_t i = 0; i < array_length(device->taps); i++)
		device->taps[i] = -1;
	for (size_t i = 0; i < array_length(device->queues); i++) {
		struct vhost_user_queue *queue = &device->queues[i];

		queue->kick = queue->call = queue->failure = queue->stop_event = -1;
	}
	return device;
}

static void close_all(int socket, const int *taps, size_t count)
{
	fd_close(socket);
	for (size_t i = 0; i < count; i++)
		fd_close(taps[i]);
}

int vhost_user_open(
	int socket, const int *taps, size_t queue_pairs, size_t mtu, struct vhost_user **ret_device)
{
	cleanup_with(vhost_user_close) struct vhost_user *device = NULL;
	bool is_possible = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
	int error = 0;

	if (!is_possible)
		error = -ENOTSUP;
	else if (queue_pairs < 1 || queue_pairs > VHOST_USER_QUEUE_PAIRS_MAX ||
		 mtu > FRAME_SIZE_MAX - FRAME_HEADER_SIZE)
		error = -EINVAL;
	else if (!(device = new_device()))
		error = -ENOMEM;
	if (error) {
		close_all(socket, taps, queue_pairs);
		return error;
	}
	device->queue_pairs = queue_pairs;
	device->mtu = mtu;
	for (size_t i = 0; i < queue_pairs; i++) {
		device->taps[i] = taps[i];
		device->is_attached[i] = true;
	}
	error = set_up_socket(device, socket);
	device->ended_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!error && device->ended_event < 0)
		error = -errno;
	if (!error)
		error = set_up_queues(device);
	if (!error)
		error = set_up_taps(device);
	if (error)
		return error;
	*ret_device = take_ptr(device);
	return 0;
}

void vhost_user_close(struct vhost_user *device)
{
	if (!device)
		return;
	for (size_t i = 0; i < 2 * device->queue_pairs; i++)
		vhost_user_queue_done(&device->queues[i]);
	vhost_user_memory_done(&device->memory);
	fd_list_done(&device->message.fds);
	close_all(device->connection, device->taps, device->queue_pairs);
	fd_close(device->listener);
	fd_close(device->ended_event);
	free(device);
}

void vhost_user_fill(const struct vhost_user *device, struct pollfd fds[VHOST_USER_FDS])
{
	int watched[] = {
		[WATCHED_ENDED] = device->ended_event,
		[WATCHED_CONNECTION] = device->connection,
		[WATCHED_LISTENER] = device->connection < 0 ? device->listener : -1,
		/* Whoever reads it notices by himself, and is not to wake us for each frame. */
		[WATCHED_TAP] =
			device->queues[0].state == VHOST_USER_QUEUE_RUNNING ? -1 : device->taps[0],
	};

	for (size_t i = 0; i < WATCHED_COUNT; i++)
		fds[i] = (struct pollfd){.fd = watched[i], .events = POLLIN};
	/* That it has frames is no news here. But without an event that the kernel's wake-up has
	 * (sock_def_readable, Linux 6.18), it would not tell that the TAP was deleted either. */
	fds[WATCHED_TAP].events = POLLPRI;
}

static enum vhost_user_news end(struct vhost_user *device, int error, char *reason)
{
	device->result = error;
	if (!*reason)
		snprintf(reason, VHOST_USER_REASON_SIZE, "cannot go on: %s", strerror(-error));
	return VHOST_USER_ENDED;
}

/* Back to where no front-end has said anything yet. */
static enum vhost_user_news disconnect(
	struct vhost_user *device, enum vhost_user_news news, char *reason)
{
	int error;

	vhost_user_pause_all(device);
	for (size_t i = 0; i < 2 * device->queue_pairs; i++)
		vhost_user_queue_reset(&device->queues[i]);
	vhost_user_memory_done(&device->memory);
	vhost_user_message_reset(&device->message);
	device->protocol_features = 0;
	fd_close(take_fd(&device->connection));
	if (device->listener < 0)
		return end(device, -ECONNRESET, reason);
	error = vhost_user_apply_features(device, 0);
	if (!error)
		error = vhost_user_resume_all(device);
	return error ? end(device, error, reason) : news;
}

static enum vhost_user_news on_message(struct vhost_user *device, char *reason)
{
	int received = vhost_user_message_receive(device->connection, &device->message);
	int error;

	if (received == 0)
		return VHOST_USER_NOTHING;
	if (received == 1) {
		error = vhost_user_handle(device, &device->message, reason);
		vhost_user_message_reset(&device->message);
		return error ? disconnect(device, VHOST_USER_REFUSED, reason) : VHOST_USER_NOTHING;
	}
	if (received == -ECONNRESET) {
		snprintf(reason, VHOST_USER_REASON_SIZE, "the front-end has gone");
		return disconnect(device, VHOST_USER_DISCONNECTED, reason);
	}
	snprintf(reason, VHOST_USER_REASON_SIZE, "message of type %u with %u bytes: %s",
		device->message.header.request, device->message.header.size, strerror(-received));
	return disconnect(device, VHOST_USER_REFUSED, reason);
}

static enum vhost_user_news on_connection(struct vhost_user *device, char *reason)
{
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);
	int connection = accept4(device->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	/* Who gave up in the meantime is nobody's loss. */
	if (connection < 0)
		return VHOST_USER_NOTHING;
	getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	device->connection = connection;
	snprintf(reason, VHOST_USER_REASON_SIZE, "the front-end connected (pid %d)", peer.pid);
	return VHOST_USER_CONNECTED;
}

static enum vhost_user_news judge_queue(struct vhost_user *device, size_t index, char *reason)
{
	struct vhost_user_queue *queue = &device->queues[index];
	int result = atomic_load(&queue->result);

	vhost_user_queue_pause(queue);
	if (result != -EPROTO)
		return end(device, result, reason);
	/* Told once. */
	atomic_store(&queue->result, 0);
	snprintf(reason, VHOST_USER_REASON_SIZE, "queue %zu (%s) stopped, the guest broke it: %s",
		index / 2, direction_name(queue->direction), queue->ring.fault);
	return VHOST_USER_RING_BROKEN;
}

static enum vhost_user_news on_ended_queue(struct vhost_user *device, char *reason)
{
	eventfd_t ignored;

	eventfd_read(device->ended_event, &ignored);
	for (size_t i = 0; i < 2 * device->queue_pairs; i++) {
		struct vhost_user_queue *queue = &device->queues[i];

		if (queue->state == VHOST_USER_QUEUE_STOPPED || atomic_load(&queue->result) == 0)
			continue;
		/* It may not be the only one. */
		eventfd_write(device->ended_event, 1);
		return judge_queue(device, i, reason);
	}
	return VHOST_USER_NOTHING;
}

enum vhost_user_news vhost_user_dispatch(
	struct vhost_user *device, const struct pollfd fds[VHOST_USER_FDS], char *ret_reason)
{
	*ret_reason = '\0';
	if (fds[WATCHED_ENDED].revents)
		return on_ended_queue(device, ret_reason);
	if (fds[WATCHED_TAP].revents)
		return end(device, -EBADFD, ret_reason);
	if (fds[WATCHED_CONNECTION].revents && device->connection >= 0)
		return on_message(device, ret_reason);
	if (fds[WATCHED_LISTENER].revents && device->connection < 0)
		return on_connection(device, ret_reason);
	return VHOST_USER_NOTHING;
}

int vhost_user_result(const struct vhost_user *device)
{
	return device->result;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void vhost_user_count(const struct vhost_user *device, enum direction direction,
	struct direction_counters *ret_counters)
{
	*ret_counters = (struct direction_counters){0};
	for (size_t i = 0; i < 2 * device->queue_pairs; i++) {
		const struct vhost_user_queue *queue = &device->queues[i];

		if (queue->direction != direction)
			continue;
		counter_add(&ret_counters->packets, get(&queue->counters.packets));
		counter_add(&ret_counters->bytes, get(&queue->counters.bytes));
		counter_add(&ret_counters->drops, get(&queue->counters.drops));
	}
}

uint64_t vhost_user_stopped_queues(const struct vhost_user *device)
{
	uint64_t breaks = 0;

	for (size_t i = 0; i < 2 * device->queue_pairs; i++)
		breaks += device->queues[i].breaks;
	return breaks;
}
