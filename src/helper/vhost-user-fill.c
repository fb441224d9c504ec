/* host->vm: from the TAP into the guest's buffers. */
#include "helper/vhost-user-queue.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

/*
 * A frame waits in the TAP this long while the guest has buffers, but too few for the largest
 * frame. A Linux guest that is busy gives new ones well within it; one with a small ring, which
 * never has more, costs the wait once.
 */
#define PATIENCE_MS 20

/* The last place is the spill's. */
#define READ_PARTS_MAX (VHOST_USER_PARTS_MAX - 1)

static size_t staged_parts(const struct vhost_user_stage *stage)
{
	return stage->part_end - stage->part_first;
}

static void move_to_front(struct vhost_user_stage *stage)
{
	size_t part_count = staged_parts(stage);
	size_t chain_count = stage->chain_end - stage->chain_first;

	memmove(stage->parts, stage->parts + stage->part_first, part_count * sizeof(*stage->parts));
	memmove(stage->chains, stage->chains + stage->chain_first,
		chain_count * sizeof(*stage->chains));
	stage->part_first = stage->chain_first = 0;
	stage->part_end = part_count;
	stage->chain_end = chain_count;
}

/* What is staged for one frame, if the guest gives it: without merging a frame goes into one chain,
 * whatever its size. */
static uint64_t wanted_size(const struct vhost_user_queue *queue)
{
	return queue->has_merging ? queue->header_size + queue->frame_max : 1;
}

static bool has_enough(const struct vhost_user_queue *queue)
{
	return queue->stage->size >= queue->stage->size_min;
}

/* Virtio 1.2, 5.1.6.3.1; without merging less than the smallest frame is of no use. */
static size_t smallest_buffer(const struct vhost_user_queue *queue)
{
	return queue->header_size + (queue->has_merging ? 0 : FRAME_HEADER_SIZE);
}

/* Returns 1 when another chain was staged, 0 when there is none or no place for it. */
static int stage_chain(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;
	struct vhost_user_chain *chain = &stage->chains[stage->chain_end];
	int fetched = vhost_user_ring_fetch(&queue->ring, VHOST_USER_WRITE,
		stage->parts + stage->part_end, READ_PARTS_MAX - staged_parts(stage), chain);

	if (fetched == -ENOBUFS && stage->size > 0) {
		/* Waiting would not make more of it. */
		stage->size_min = stage->size;
		return 0;
	}
	if (fetched == -ENOBUFS) {
		queue->ring.fault = "a buffer in too many parts";
		return -EPROTO;
	}
	if (fetched <= 0)
		return fetched;
	if (chain->size < smallest_buffer(queue)) {
		queue->ring.fault = "a buffer too small for any frame";
		return -EPROTO;
	}
	stage->chain_end++;
	stage->part_end += chain->part_count;
	stage->size += chain->size;
	return 1;
}

/* Takes whatever there is up to what is wanted, also when less would do. */
static int stage_buffers(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;
	int staged = 1;

	if (stage->size >= wanted_size(queue))
		return 0;
	/* Behind it there is room for whatever one read may take. */
	if (stage->part_first > array_length(stage->parts) - VHOST_USER_PARTS_MAX)
		move_to_front(stage);
	while (staged > 0 && stage->size < wanted_size(queue))
		staged = stage_chain(queue);
	/* The shortage is over. */
	if (staged > 0)
		stage->size_min = wanted_size(queue);
	return staged < 0 ? staged : 0;
}

/* The count of buffers is at the end of the header, which the guest may have cut anywhere. */
static void write_buffer_count(struct iovec *parts, uint16_t count)
{
	size_t offset = offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers);

	for (size_t i = 0; i < sizeof(count); i++, offset++) {
		while (offset >= parts->iov_len) {
			offset -= parts->iov_len;
			parts++;
		}
		((uint8_t *)parts->iov_base)[offset] = (uint8_t)(count >> (8 * i));
	}
}

/* Gives the guest the first buffers, of which the frame has filled size bytes. */
static void use_buffers(struct vhost_user_queue *queue, size_t size)
{
	struct vhost_user_stage *stage = queue->stage;
	struct iovec *parts = stage->parts + stage->part_first;
	uint16_t count = 0;

	while (size > 0) {
		const struct vhost_user_chain *chain = &stage->chains[stage->chain_first++];
		size_t filled = size < chain->size ? size : (size_t)chain->size;

		vhost_user_ring_use(&queue->ring, chain->head, (uint32_t)filled);
		stage->part_first += chain->part_count;
		stage->size -= chain->size;
		size -= filled;
		count++;
	}
	if (queue->header_size == VHOST_USER_HEADER_SIZE)
		write_buffer_count(parts, count);
}

/* readv(2) into all that is staged, with the spill behind it. */
static ssize_t read_frame(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;
	ssize_t size;

	stage->parts[stage->part_end] =
		(struct iovec){.iov_base = stage->spill, .iov_len = sizeof(stage->spill)};
	do {
		size = readv(
			queue->tap, stage->parts + stage->part_first, (int)staged_parts(stage) + 1);
	} while (size < 0 && errno == EINTR);
	return size < 0 ? -errno : size;
}

/* Returns 1 when a frame came, delivered or not, 0 when none was there. */
static int move_frame(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;
	ssize_t size = read_frame(queue);

	if (size == -EAGAIN)
		return 0;
	/* The front-end has cut the memory away: nobody can have the frame. */
	if (size == -EFAULT)
		counter_add(&queue->counters.drops, 1);
	else if (size < 0)
		return (int)size;
	else if ((uint64_t)size > stage->size ||
		 (size_t)size < queue->header_size + FRAME_HEADER_SIZE) {
		counter_add(&queue->counters.drops, 1);
		/* Large frames do come: be patient again when the guest has few buffers. */
		stage->size_min = wanted_size(queue);
	} else {
		use_buffers(queue, (size_t)size);
		counter_add(&queue->counters.packets, 1);
		counter_add(&queue->counters.bytes, (size_t)size - queue->header_size);
		vhost_user_queue_count(queue, (size_t)size);
	}
	return 1;
}

static int wait_for_buffers(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;
	bool has_some = stage->chain_end > stage->chain_first;
	int kicked;

	vhost_user_queue_publish(queue);
	kicked = vhost_user_queue_wait_for_kick(queue, has_some ? PATIENCE_MS : -1);
	/* Half of them: a Linux guest gives new ones when half of its ring is gone, not before. */
	if (kicked == 0 && has_some)
		stage->size_min = stage->size / 2;
	return kicked < 0 ? kicked : 0;
}

static int wait_for_frame(struct vhost_user_queue *queue)
{
	vhost_user_queue_publish(queue);
	/* A deleted TAP says so when it is read. */
	vhost_user_queue_wait(queue, queue->tap, -1);
	return 0;
}

/* Frames that find no buffers stay in the TAP's own queue, whose overflow the kernel counts. */
int vhost_user_queue_fill(struct vhost_user_queue *queue)
{
	struct vhost_user_stage *stage = queue->stage;
	int error = 0;

	stage->part_first = stage->part_end = stage->chain_first = stage->chain_end = 0;
	stage->size = 0;
	stage->size_min = wanted_size(queue);
	vhost_user_ring_disarm(&queue->ring);
	while (!error && !vhost_user_queue_is_stopping(queue)) {
		int moved;

		error = stage_buffers(queue);
		if (error)
			break;
		if (!has_enough(queue)) {
			error = wait_for_buffers(queue);
			continue;
		}
		moved = move_frame(queue);
		if (moved < 0)
			error = moved;
		else if (moved == 0)
			error = wait_for_frame(queue);
	}
	return error;
}
