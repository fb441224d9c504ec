#include "fake-queue.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cmocka.h>

#define TIMEOUT_MS 10000

void fake_queue_init(struct fake_queue *fixture, enum direction direction)
{
	struct vhost_user_queue *queue = &fixture->queue;

	memset(fixture, 0, sizeof(*fixture));
	fake_guest_init(&fixture->guest);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fixture->ends), 0);
	fixture->tap = fixture->ends[1];
	fixture->ended = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(
		vhost_user_queue_init(queue, direction, fixture->ends[0], fixture->ended), 0);
	fixture->kick = eventfd(0, EFD_NONBLOCK);
	fixture->call = eventfd(0, EFD_NONBLOCK);
	queue->kick = dup(fixture->kick);
	queue->call = dup(fixture->call);
	queue->place = fixture->guest.place;
	queue->is_enabled = true;
	queue->has_merging = true;
	queue->header_size = VHOST_USER_HEADER_SIZE;
	queue->frame_max = VHOST_USER_FRAME_MAX;
	vhost_user_queue_begin(queue, 0);
}

void fake_queue_done(struct fake_queue *fixture)
{
	vhost_user_queue_done(&fixture->queue);
	fake_guest_done(&fixture->guest);
	fd_close(fixture->ends[0]);
	fd_close(fixture->ends[1]);
	fd_close(fixture->kick);
	fd_close(fixture->call);
	fd_close(fixture->ended);
}

void fake_queue_start(struct fake_queue *fixture)
{
	assert_int_equal(vhost_user_queue_resume(&fixture->queue, &fixture->guest.memory), 0);
	assert_int_equal(fixture->queue.state, VHOST_USER_QUEUE_RUNNING);
}

void fake_queue_kick(struct fake_queue *fixture)
{
	assert_int_equal(eventfd_write(fixture->kick, 1), 0);
}

uint8_t *fake_queue_buffer(const struct fake_queue *fixture, size_t index)
{
	return fixture->guest.bytes + FAKE_BUFFERS + index * FAKE_BUFFER_SIZE;
}

void fake_wait_for(int fd, short events)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};

	assert_int_equal(poll(&poll_fd, 1, TIMEOUT_MS), 1);
}

/* Calls may be saved; what counts is that one follows the last. */
void fake_queue_wait_for_used(struct fake_queue *fixture, uint16_t count)
{
	const struct vring_used *used = fake_used(&fixture->guest);
	struct vring_avail *avail = fake_avail(&fixture->guest);
	eventfd_t ignored;

	__atomic_store_n(&avail->ring[FAKE_RING_SIZE], (uint16_t)(count - 1), __ATOMIC_SEQ_CST);
	while ((int16_t)(__atomic_load_n(&used->idx, __ATOMIC_SEQ_CST) - count) < 0) {
		fake_wait_for(fixture->call, POLLIN);
		eventfd_read(fixture->call, &ignored);
	}
	assert_int_equal(used->idx, count);
}

uint64_t fake_queue_drops(const struct fake_queue *fixture)
{
	return atomic_load(&fixture->queue.counters.drops);
}

void fake_queue_assert_broken(struct fake_queue *fixture)
{
	fake_wait_for(fixture->ended, POLLIN);
	vhost_user_queue_pause(&fixture->queue);
	assert_int_equal(fixture->queue.state, VHOST_USER_QUEUE_BROKEN);
	assert_int_equal(fixture->queue.breaks, 1);
	assert_int_equal(atomic_load(&fixture->queue.result), -EPROTO);
	/* It stays so until the ring begins anew. */
	assert_int_equal(vhost_user_queue_resume(&fixture->queue, &fixture->guest.memory), 0);
	assert_int_equal(fixture->queue.state, VHOST_USER_QUEUE_BROKEN);
}
