#include "helper/vhost-user-queue.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

/*
 * When the guest is shown what was done, if not before for want of more. The bytes let the guest
 * work at one large frame while the next is copied: TCP in 64 KiB frames, Gbit/s to the host and to
 * the VM, best of five runs on a busy machine: each frame 9.3 and 8.6, 64 KiB 10.6 and 10.1, 256
 * KiB 7.7 and 7.4, 4 MiB 8.1 and 7.6. The frames bound what small ones wait; 1, 8 and 64 of 1442
 * bytes did not differ beyond the noise, so it is as many as the other ports' batch.
 */
#define PUBLISH_FRAMES BATCH_FRAMES
#define PUBLISH_BYTES  65536

int vhost_user_queue_init(
	struct vhost_user_queue *queue, enum direction direction, int tap, int ended_event)
{
	*queue = (struct vhost_user_queue){
		.direction = direction,
		.tap = tap,
		.kick = -1,
		.call = -1,
		.failure = -1,
		.stop_event = -1,
		.ended_event = ended_event,
	};
	queue->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->stop_event < 0)
		return -errno;
	if (direction == DIRECTION_HOST_TO_VM)
		queue->stage = malloc(sizeof(*queue->stage));
	else
		queue->parts = calloc(VHOST_USER_PARTS_MAX, sizeof(*queue->parts));
	return queue->stage || queue->parts ? 0 : -ENOMEM;
}

void vhost_user_queue_done(struct vhost_user_queue *queue)
{
	vhost_user_queue_pause(queue);
	vhost_user_queue_reset(queue);
	fd_close(take_fd(&queue->stop_event));
	free(take_ptr(queue->stage));
	free(take_ptr(queue->parts));
}

/* The one place where the state changes. */
static void enter(struct vhost_user_queue *queue, enum vhost_user_queue_state state)
{
	queue->state = state;
}

void vhost_user_queue_begin(struct vhost_user_queue *queue, uint16_t position)
{
	queue->position = position;
	queue->is_new = true;
	enter(queue, VHOST_USER_QUEUE_STOPPED);
}

void vhost_user_queue_halt(struct vhost_user_queue *queue)
{
	fd_close(take_fd(&queue->kick));
	vhost_user_queue_begin(queue, queue->position);
}

void vhost_user_queue_reset(struct vhost_user_queue *queue)
{
	fd_close(take_fd(&queue->kick));
	fd_close(take_fd(&queue->call));
	fd_close(take_fd(&queue->failure));
	queue->place = (struct vhost_user_ring_place){0};
	queue->is_enabled = false;
	vhost_user_queue_begin(queue, 0);
}

static void *run_queue(void *context)
{
	struct vhost_user_queue *queue = context;
	int result;

	result = queue->direction == DIRECTION_HOST_TO_VM ? vhost_user_queue_fill(queue)
							  : vhost_user_queue_drain(queue);
	vhost_user_queue_publish(queue);
	if (result == 0)
		return NULL;
	atomic_store(&queue->result, result);
	if (queue->failure >= 0)
		eventfd_write(queue->failure, 1);
	eventfd_write(queue->ended_event, 1);
	return NULL;
}

void vhost_user_queue_pause(struct vhost_user_queue *queue)
{
	eventfd_t ignored;

	if (queue->state != VHOST_USER_QUEUE_RUNNING)
		return;
	atomic_store(&queue->is_stopping, true);
	eventfd_write(queue->stop_event, 1);
	pthread_join(queue->thread, NULL);
	eventfd_read(queue->stop_event, &ignored);
	atomic_store(&queue->is_stopping, false);
	queue->position = queue->ring.next_used;
	if (atomic_load(&queue->result) == 0) {
		enter(queue, VHOST_USER_QUEUE_STOPPED);
		return;
	}
	queue->breaks += atomic_load(&queue->result) == -EPROTO;
	enter(queue, VHOST_USER_QUEUE_BROKEN);
}

/* A guest that got no frames gets none of those that waited: they are as old as its last stop. */
static void discard_waiting_frames(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;

	/* More than any TAP's queue holds by default. */
	for (int i = 0; i < 4096; i++) {
		if (read(queue->tap, stage->spill, sizeof(stage->spill)) < 0)
			return;
		counter_add(&queue->counters.drops, 1);
	}
}

/*
 * As buffers are used in order, those behind the used index are exactly those that were not used,
 * also when a device was killed in the middle of them. The front-end's own figure is a guess then.
 */
static void take_position(struct vhost_user_queue *queue)
{
	if (!queue->is_new)
		return;
	queue->is_new = false;
	queue->position = vhost_user_ring_stored_position(&queue->ring);
	queue->ring.next_avail = queue->ring.seen_avail = queue->position;
	queue->ring.next_used = queue->ring.published = queue->position;
	if (queue->direction == DIRECTION_HOST_TO_VM)
		discard_waiting_frames(queue);
}

int vhost_user_queue_resume(struct vhost_user_queue *queue, const struct vhost_user_memory *memory)
{
	int error;

	if (queue->state != VHOST_USER_QUEUE_STOPPED || queue->kick < 0)
		return 0;
	if (!queue->is_enabled && queue->direction == DIRECTION_HOST_TO_VM)
		return 0;
	if (vhost_user_ring_init(&queue->ring, memory, &queue->place, queue->position) < 0)
		return 0;
	take_position(queue);
	atomic_store(&queue->result, 0);
	queue->pending_frames = queue->pending_bytes = 0;
	/* A call may have been lost with the fd that was replaced while the thread was away. */
	if (queue->call >= 0)
		eventfd_write(queue->call, 1);
	error = pthread_create(&queue->thread, NULL, run_queue, queue);
	if (error)
		return -error;
	enter(queue, VHOST_USER_QUEUE_RUNNING);
	return 0;
}

void vhost_user_queue_publish(struct vhost_user_queue *queue)
{
	queue->pending_frames = queue->pending_bytes = 0;
	if (vhost_user_ring_publish(&queue->ring) && queue->call >= 0)
		eventfd_write(queue->call, 1);
}

void vhost_user_queue_count(struct vhost_user_queue *queue, size_t bytes)
{
	queue->pending_frames++;
	queue->pending_bytes += (uint32_t)bytes;
	if (queue->pending_frames >= PUBLISH_FRAMES || queue->pending_bytes >= PUBLISH_BYTES)
		vhost_user_queue_publish(queue);
}

int vhost_user_queue_wait(struct vhost_user_queue *queue, int fd, int timeout_ms)
{
	struct pollfd fds[] = {
		{.fd = fd, .events = POLLIN},
		{.fd = queue->stop_event, .events = POLLIN},
	};

	poll(fds, array_length(fds), timeout_ms);
	if (fds[0].revents & POLLIN)
		return 1;
	return fds[0].revents ? -EPIPE : 0;
}

int vhost_user_queue_wait_for_kick(struct vhost_user_queue *queue, int timeout_ms)
{
	eventfd_t ignored;
	int kicked = 1;

	if (!vhost_user_ring_arm(&queue->ring))
		kicked = vhost_user_queue_wait(queue, queue->kick, timeout_ms);
	if (kicked < 0) {
		queue->ring.fault = "its kick was closed";
		return -EPROTO;
	}
	eventfd_read(queue->kick, &ignored);
	vhost_user_ring_disarm(&queue->ring);
	return kicked;
}
