/* vm->host: from the guest's buffers into the TAP. */
#include "helper/vhost-user-queue.h"

#include "base/cleanup.h"

#include <errno.h>

/* Whatever one frame ran into, the next may pass; only a deleted TAP will never work again. */
static bool is_fatal(int error)
{
	return error == EBADFD || error == EBADF;
}

static bool has_frame_size(const struct vhost_user_queue *queue, uint64_t size)
{
	return size >= queue->header_size + FRAME_HEADER_SIZE &&
	       size <= queue->header_size + VHOST_USER_FRAME_MAX;
}

/*
 * The guest may change header and frame while the kernel takes them: it copies the header once, and
 * trusts nothing in the frame anyway. Returns 0 or the errno that ends the queue.
 */
static int write_frame(struct vhost_user_queue *queue, const struct vhost_user_chain *chain)
{
	ssize_t size;

	if (!queue->is_enabled || !has_frame_size(queue, chain->size)) {
		counter_add(&queue->counters.drops, 1);
		return 0;
	}
	do {
		size = writev(queue->tap, queue->parts, chain->part_count);
	} while (size < 0 && errno == EINTR);
	if (size < 0 && is_fatal(errno))
		return -errno;
	if (size < 0) {
		counter_add(&queue->counters.drops, 1);
		return 0;
	}
	counter_add(&queue->counters.packets, 1);
	counter_add(&queue->counters.bytes, chain->size - queue->header_size);
	return 0;
}

/* Returns 1 when a frame was taken, delivered or not, 0 when the guest has none. */
static int move_frame(struct vhost_user_queue *queue)
{
	struct vhost_user_chain chain;
	int error = vhost_user_ring_fetch(
		&queue->ring, VHOST_USER_READ, queue->parts, VHOST_USER_PARTS_MAX, &chain);

	if (error == -ENOBUFS) {
		queue->ring.fault = "a frame in too many parts";
		return -EPROTO;
	}
	if (error <= 0)
		return error;
	error = write_frame(queue, &chain);
	if (error)
		return error;
	vhost_user_ring_use(&queue->ring, chain.head, 0);
	vhost_user_queue_count(queue, chain.size);
	return 1;
}

int vhost_user_queue_drain(struct vhost_user_queue *queue)
{
	int result = 0;

	vhost_user_ring_disarm(&queue->ring);
	while (result >= 0 && !vhost_user_queue_is_stopping(queue)) {
		result = move_frame(queue);
		if (result == 0) {
			vhost_user_queue_publish(queue);
			result = vhost_user_queue_wait_for_kick(queue, -1);
		}
	}
	return result < 0 ? result : 0;
}
