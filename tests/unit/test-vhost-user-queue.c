#include "helper/vhost-user-queue.h"

#include "base/cleanup.h"
#include "fake-guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TIMEOUT_MS  10000
#define HEADER_SIZE VHOST_USER_HEADER_SIZE
#define WRITE       VRING_DESC_F_WRITE

/* The TAP is a datagram socket: one frame a system call, and it never blocks. */
struct fixture {
	struct fake_guest guest;
	struct vhost_user_queue queue;
	int tap;  /* the test's end */
	int call; /* the guest's end */
	int kick;
	int ended;
	int ends[2];
};

static void set_up(struct fixture *fixture, enum direction direction)
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
	queue->header_size = HEADER_SIZE;
	queue->frame_max = VHOST_USER_FRAME_MAX;
	vhost_user_queue_begin(queue, 0);
}

static void tear_down(struct fixture *fixture)
{
	vhost_user_queue_done(&fixture->queue);
	fake_guest_done(&fixture->guest);
	fd_close(fixture->ends[0]);
	fd_close(fixture->ends[1]);
	fd_close(fixture->kick);
	fd_close(fixture->call);
	fd_close(fixture->ended);
}

static void start(struct fixture *fixture)
{
	assert_int_equal(vhost_user_queue_resume(&fixture->queue, &fixture->guest.memory), 0);
	assert_int_equal(fixture->queue.state, VHOST_USER_QUEUE_RUNNING);
}

static void kick(struct fixture *fixture)
{
	assert_int_equal(eventfd_write(fixture->kick, 1), 0);
}

static void give_buffers(struct fixture *fixture, uint16_t first, uint16_t count)
{
	for (uint16_t i = first; i < first + count; i++) {
		fake_set(fake_descriptor(&fixture->guest, i), FAKE_BUFFERS + i * FAKE_BUFFER_SIZE,
			FAKE_BUFFER_SIZE, WRITE, 0);
		fake_give(&fixture->guest, i);
	}
}

static uint8_t *buffer(const struct fixture *fixture, size_t index)
{
	return fixture->guest.bytes + FAKE_BUFFERS + index * FAKE_BUFFER_SIZE;
}

static void wait_for(int fd, short events)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};

	assert_int_equal(poll(&poll_fd, 1, TIMEOUT_MS), 1);
}

/* Calls may be saved; what counts is that one follows the last. */
static void wait_for_used(struct fixture *fixture, uint16_t count)
{
	const struct vring_used *used = fake_used(&fixture->guest);
	struct vring_avail *avail = fake_avail(&fixture->guest);
	eventfd_t ignored;

	__atomic_store_n(&avail->ring[FAKE_RING_SIZE], (uint16_t)(count - 1), __ATOMIC_SEQ_CST);
	while ((int16_t)(__atomic_load_n(&used->idx, __ATOMIC_SEQ_CST) - count) < 0) {
		wait_for(fixture->call, POLLIN);
		eventfd_read(fixture->call, &ignored);
	}
	assert_int_equal(used->idx, count);
}

static void send_frame(struct fixture *fixture, size_t size, uint8_t number)
{
	static uint8_t bytes[HEADER_SIZE + VHOST_USER_FRAME_MAX + 100];

	memset(bytes, number, sizeof(bytes));
	wait_for(fixture->tap, POLLOUT);
	assert_int_equal(send(fixture->tap, bytes, HEADER_SIZE + size, 0), HEADER_SIZE + size);
}

static uint64_t drops(const struct fixture *fixture)
{
	return atomic_load(&fixture->queue.counters.drops);
}

static uint16_t buffer_count(const struct fixture *fixture, size_t index)
{
	uint16_t count;

	memcpy(&count,
		buffer(fixture, index) + offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers),
		sizeof(count));
	return count;
}

/* host->vm */

static void test_frame_into_one_buffer(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	start(&fixture);
	send_frame(&fixture, 60, 0xaa);
	wait_for_used(&fixture, 1);
	assert_int_equal(fake_used(&fixture.guest)->ring[0].id, 0);
	assert_int_equal(fake_used(&fixture.guest)->ring[0].len, HEADER_SIZE + 60);
	assert_int_equal(buffer_count(&fixture, 0), 1);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE], 0xaa);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE + 59], 0xaa);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE + 60], 0);
	assert_int_equal(atomic_load(&fixture.queue.counters.packets), 1);
	assert_int_equal(atomic_load(&fixture.queue.counters.bytes), 60);
	tear_down(&fixture);
}

static void test_frame_over_buffers(void **state)
{
	const size_t size = 3 * FAKE_BUFFER_SIZE;
	struct fixture fixture;
	const struct vring_used *used;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	used = fake_used(&fixture.guest);
	give_buffers(&fixture, 0, 16);
	start(&fixture);
	send_frame(&fixture, size, 0xbb);
	wait_for_used(&fixture, 4);
	assert_int_equal(buffer_count(&fixture, 0), 4);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(used->ring[i].len, FAKE_BUFFER_SIZE);
	assert_int_equal(used->ring[3].len, HEADER_SIZE);
	assert_int_equal(buffer(&fixture, 3)[HEADER_SIZE - 1], 0xbb);
	assert_int_equal(buffer(&fixture, 3)[HEADER_SIZE], 0);
	/* The next one goes on behind it. */
	send_frame(&fixture, 60, 0xcc);
	wait_for_used(&fixture, 5);
	assert_int_equal(used->ring[4].id, 4);
	assert_int_equal(buffer_count(&fixture, 4), 1);
	tear_down(&fixture);
}

/* The header's last field lies at the guest's mercy. */
static void test_header_in_pieces(void **state)
{
	struct fixture fixture;
	struct fake_guest *guest = &fixture.guest;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fake_set(fake_descriptor(guest, 0), FAKE_BUFFERS, 11, WRITE | VRING_DESC_F_NEXT, 1);
	fake_set(fake_descriptor(guest, 1), FAKE_BUFFERS + 100, 4000, WRITE, 0);
	fake_give(guest, 0);
	fixture.queue.frame_max = 1518;
	start(&fixture);
	send_frame(&fixture, 60, 0xee);
	wait_for_used(&fixture, 1);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 10], 1);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 11], 0);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 100], 0);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 101], 0xee);
	tear_down(&fixture);
}

/* A ring that never has room for the largest frame takes the smaller ones, and loses the others. */
static void test_few_buffers(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 2);
	start(&fixture);
	send_frame(&fixture, 3 * FAKE_BUFFER_SIZE, 0x11);
	send_frame(&fixture, 60, 0x22);
	wait_for_used(&fixture, 1);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE], 0x22);
	assert_int_equal(drops(&fixture), 1);
	tear_down(&fixture);
}

/* Buffers that come later count, whether the device had given up waiting for them or not. */
static void test_more_buffers(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.frame_max = 2 * FAKE_BUFFER_SIZE - HEADER_SIZE;
	give_buffers(&fixture, 0, 2);
	start(&fixture);
	for (uint16_t i = 0; i < 8; i += 2) {
		send_frame(&fixture, 60, 0x10);
		wait_for_used(&fixture, (uint16_t)(i + i / 2 + 1));
		give_buffers(&fixture, (uint16_t)(i + i / 2 + 2), 1);
		kick(&fixture);
		send_frame(&fixture, FAKE_BUFFER_SIZE + 100, 0x20);
		wait_for_used(&fixture, (uint16_t)(i + i / 2 + 3));
		give_buffers(&fixture, (uint16_t)(i + i / 2 + 3), 2);
		kick(&fixture);
	}
	assert_int_equal(drops(&fixture), 0);
	tear_down(&fixture);
}

static void test_waits_for_buffers(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	start(&fixture);
	send_frame(&fixture, 60, 0x33);
	give_buffers(&fixture, 0, 16);
	kick(&fixture);
	wait_for_used(&fixture, 1);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE], 0x33);
	assert_int_equal(drops(&fixture), 0);
	tear_down(&fixture);
}

static void test_without_merging(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.has_merging = false;
	give_buffers(&fixture, 0, 3);
	start(&fixture);
	send_frame(&fixture, FAKE_BUFFER_SIZE, 0x44); /* with its header too long */
	send_frame(&fixture, 60, 0x55);
	send_frame(&fixture, FAKE_BUFFER_SIZE - HEADER_SIZE, 0x66);
	wait_for_used(&fixture, 2);
	assert_int_equal(drops(&fixture), 1);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE], 0x55);
	assert_int_equal(buffer_count(&fixture, 1), 1);
	assert_int_equal(buffer(&fixture, 1)[FAKE_BUFFER_SIZE - 1], 0x66);
	tear_down(&fixture);
}

static void test_legacy_header(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.has_merging = false;
	fixture.queue.header_size = VHOST_USER_LEGACY_HEADER_SIZE;
	give_buffers(&fixture, 0, 1);
	start(&fixture);
	send_frame(&fixture, 60, 0x77);
	wait_for_used(&fixture, 1);
	/* No count is written where the frame begins. */
	assert_int_equal(buffer(&fixture, 0)[VHOST_USER_LEGACY_HEADER_SIZE], 0x77);
	assert_int_equal(atomic_load(&fixture.queue.counters.bytes), 62);
	tear_down(&fixture);
}

/* What waited for a guest that was away is not for the one that comes. */
static void test_stale_frames(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	send_frame(&fixture, 60, 0x01);
	send_frame(&fixture, 60, 0x02);
	start(&fixture);
	send_frame(&fixture, 60, 0x03);
	wait_for_used(&fixture, 1);
	assert_int_equal(buffer(&fixture, 0)[HEADER_SIZE], 0x03);
	assert_int_equal(drops(&fixture), 2);
	tear_down(&fixture);
}

/* A pause is no absence: nothing is lost, and buffers that were looked at are there again. */
static void test_pause(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	start(&fixture);
	for (uint16_t i = 0; i < 8; i++) {
		vhost_user_queue_pause(&fixture.queue);
		assert_int_equal(fixture.queue.position, i);
		send_frame(&fixture, 60, (uint8_t)(0x80 + i));
		start(&fixture);
		wait_for_used(&fixture, (uint16_t)(i + 1));
		assert_int_equal(fake_used(&fixture.guest)->ring[i].id, i);
		assert_int_equal(buffer(&fixture, i)[HEADER_SIZE], 0x80 + i);
	}
	assert_int_equal(drops(&fixture), 0);
	tear_down(&fixture);
}

/* A device that was killed had used three; the front-end, which can't know, says 5. */
static void test_goes_on_at_the_used_index(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	fake_used(&fixture.guest)->idx = 3;
	vhost_user_queue_begin(&fixture.queue, 5);
	start(&fixture);
	send_frame(&fixture, 60, 0x99);
	wait_for_used(&fixture, 4);
	assert_int_equal(fake_used(&fixture.guest)->ring[3].id, 3);
	tear_down(&fixture);
}

static void assert_broken(struct fixture *fixture)
{
	wait_for(fixture->ended, POLLIN);
	vhost_user_queue_pause(&fixture->queue);
	assert_int_equal(fixture->queue.state, VHOST_USER_QUEUE_BROKEN);
	assert_int_equal(fixture->queue.breaks, 1);
	assert_int_equal(atomic_load(&fixture->queue.result), -EPROTO);
	/* It stays so until the ring begins anew. */
	assert_int_equal(vhost_user_queue_resume(&fixture->queue, &fixture->guest.memory), 0);
	assert_int_equal(fixture->queue.state, VHOST_USER_QUEUE_BROKEN);
}

static void test_broken_and_begun_anew(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.failure = eventfd(0, EFD_NONBLOCK);
	fake_give(&fixture.guest, 99);
	start(&fixture);
	assert_broken(&fixture);
	wait_for(fixture.queue.failure, POLLIN);
	fake_avail(&fixture.guest)->idx = 0;
	give_buffers(&fixture, 0, 16);
	vhost_user_queue_begin(&fixture.queue, 0);
	start(&fixture);
	send_frame(&fixture, 60, 0x12);
	wait_for_used(&fixture, 1);
	tear_down(&fixture);
}

static void test_buffer_too_small(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fake_set(fake_descriptor(&fixture.guest, 0), FAKE_BUFFERS, HEADER_SIZE + 13, WRITE, 0);
	fake_give(&fixture.guest, 0);
	start(&fixture);
	assert_broken(&fixture);
	assert_string_equal(fixture.queue.ring.fault, "a buffer too small for any frame");
	tear_down(&fixture);
}

static void test_tap_gone(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.tap = -1;
	give_buffers(&fixture, 0, 16);
	start(&fixture);
	wait_for(fixture.ended, POLLIN);
	assert_int_equal(atomic_load(&fixture.queue.result), -EBADF);
	vhost_user_queue_pause(&fixture.queue);
	assert_int_equal(fixture.queue.breaks, 0);
	tear_down(&fixture);
}

/* vm->host */

static void give_frame(struct fixture *fixture, uint16_t index, uint32_t size, uint8_t number)
{
	memset(buffer(fixture, index), number, FAKE_BUFFER_SIZE);
	fake_set(fake_descriptor(&fixture->guest, index), FAKE_BUFFERS + index * FAKE_BUFFER_SIZE,
		size, 0, 0);
	fake_give(&fixture->guest, index);
}

static void expect_frame(struct fixture *fixture, size_t size, uint8_t number)
{
	uint8_t bytes[VHOST_USER_HEADER_SIZE + VHOST_USER_FRAME_MAX];

	wait_for(fixture->tap, POLLIN);
	assert_int_equal(recv(fixture->tap, bytes, sizeof(bytes), 0), size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(bytes[i], number);
}

static void test_frames_to_host(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	give_frame(&fixture, 0, HEADER_SIZE + 60, 0x01);
	start(&fixture);
	expect_frame(&fixture, HEADER_SIZE + 60, 0x01);
	wait_for_used(&fixture, 1);
	assert_int_equal(fake_used(&fixture.guest)->ring[0].len, 0);
	give_frame(&fixture, 1, HEADER_SIZE + 1514, 0x02);
	kick(&fixture);
	expect_frame(&fixture, HEADER_SIZE + 1514, 0x02);
	wait_for_used(&fixture, 2);
	assert_int_equal(atomic_load(&fixture.queue.counters.packets), 2);
	assert_int_equal(atomic_load(&fixture.queue.counters.bytes), 1574);
	tear_down(&fixture);
}

/* No kick is asked for while frames are there, and none is waited for that isn't sent. */
static void test_kicks_asked_for(void **state)
{
	struct fixture fixture;
	const __virtio16 *event;

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	event = (const __virtio16 *)&fake_used(&fixture.guest)->ring[FAKE_RING_SIZE];
	start(&fixture);
	for (uint16_t i = 0; i < 200; i++) {
		give_frame(&fixture, i % FAKE_RING_SIZE, HEADER_SIZE + 60, (uint8_t)i);
		/* As a driver does it. */
		if (vring_need_event(
			    __atomic_load_n(event, __ATOMIC_SEQ_CST), (uint16_t)(i + 1), i))
			kick(&fixture);
		expect_frame(&fixture, HEADER_SIZE + 60, (uint8_t)i);
		wait_for_used(&fixture, (uint16_t)(i + 1));
	}
	tear_down(&fixture);
}

static void test_impossible_sizes(void **state)
{
	struct fixture fixture;
	struct fake_guest *guest = &fixture.guest;

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	give_frame(&fixture, 0, HEADER_SIZE + 13, 0x01);
	fake_set(fake_descriptor(guest, 1), 0, HEADER_SIZE + VHOST_USER_FRAME_MAX + 1, 0, 0);
	fake_give(guest, 1);
	give_frame(&fixture, 2, HEADER_SIZE + 14, 0x03);
	start(&fixture);
	expect_frame(&fixture, HEADER_SIZE + 14, 0x03);
	wait_for_used(&fixture, 3);
	assert_int_equal(drops(&fixture), 2);
	tear_down(&fixture);
}

/* A disabled ring is emptied, and nothing of it leaves. */
static void test_disabled(void **state)
{
	struct fixture fixture;
	uint8_t byte;

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	fixture.queue.is_enabled = false;
	give_frame(&fixture, 0, HEADER_SIZE + 60, 0x01);
	start(&fixture);
	wait_for_used(&fixture, 1);
	assert_int_equal(drops(&fixture), 1);
	assert_int_equal(recv(fixture.tap, &byte, 1, 0), -1);
	tear_down(&fixture);
}

/* The host's side full: frames are lost, not waited for. */
static void test_full_tap(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	start(&fixture);
	for (uint16_t i = 0; drops(&fixture) == 0; i++) {
		assert_true(i < 10000);
		give_frame(&fixture, i % FAKE_RING_SIZE, HEADER_SIZE + 1514, 0x01);
		kick(&fixture);
		wait_for_used(&fixture, (uint16_t)(i + 1));
	}
	tear_down(&fixture);
}

static void test_broken_chain_to_host(void **state)
{
	struct fixture fixture;

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	give_frame(&fixture, 0, HEADER_SIZE + 60, 0x01);
	fake_give(&fixture.guest, FAKE_RING_SIZE);
	start(&fixture);
	assert_broken(&fixture);
	/* What was good before is done. */
	expect_frame(&fixture, HEADER_SIZE + 60, 0x01);
	assert_int_equal(fake_used(&fixture.guest)->idx, 1);
	tear_down(&fixture);
}

static void test_kick_closed(void **state)
{
	struct fixture fixture;
	int pipes[2];

	set_up(&fixture, DIRECTION_VM_TO_HOST);
	assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
	fd_close(fixture.queue.kick);
	fixture.queue.kick = pipes[0];
	fd_close(pipes[1]);
	start(&fixture);
	assert_broken(&fixture);
	assert_string_equal(fixture.queue.ring.fault, "its kick was closed");
	tear_down(&fixture);
}

static void test_needs(void **state)
{
	struct fixture fixture;
	const struct vhost_user_memory none = {0};

	set_up(&fixture, DIRECTION_HOST_TO_VM);
	assert_int_equal(vhost_user_queue_resume(&fixture.queue, &none), 0);
	assert_int_equal(fixture.queue.state, VHOST_USER_QUEUE_STOPPED);
	fixture.queue.is_enabled = false;
	assert_int_equal(vhost_user_queue_resume(&fixture.queue, &fixture.guest.memory), 0);
	assert_int_equal(fixture.queue.state, VHOST_USER_QUEUE_STOPPED);
	fixture.queue.is_enabled = true;
	vhost_user_queue_halt(&fixture.queue);
	assert_int_equal(vhost_user_queue_resume(&fixture.queue, &fixture.guest.memory), 0);
	assert_int_equal(fixture.queue.state, VHOST_USER_QUEUE_STOPPED);
	tear_down(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_into_one_buffer),
		cmocka_unit_test(test_frame_over_buffers),
		cmocka_unit_test(test_header_in_pieces),
		cmocka_unit_test(test_few_buffers),
		cmocka_unit_test(test_more_buffers),
		cmocka_unit_test(test_waits_for_buffers),
		cmocka_unit_test(test_without_merging),
		cmocka_unit_test(test_legacy_header),
		cmocka_unit_test(test_stale_frames),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_goes_on_at_the_used_index),
		cmocka_unit_test(test_broken_and_begun_anew),
		cmocka_unit_test(test_buffer_too_small),
		cmocka_unit_test(test_tap_gone),
		cmocka_unit_test(test_frames_to_host),
		cmocka_unit_test(test_kicks_asked_for),
		cmocka_unit_test(test_impossible_sizes),
		cmocka_unit_test(test_disabled),
		cmocka_unit_test(test_full_tap),
		cmocka_unit_test(test_broken_chain_to_host),
		cmocka_unit_test(test_kick_closed),
		cmocka_unit_test(test_needs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
