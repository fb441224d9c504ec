#include "fake-queue.h"

#include "base/cleanup.h"

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

#define HEADER_SIZE VHOST_USER_HEADER_SIZE

static void give_frame(struct fake_queue *fixture, uint16_t index, uint32_t size, uint8_t number)
{
	memset(fake_queue_buffer(fixture, index), number, FAKE_BUFFER_SIZE);
	fake_set(fake_descriptor(&fixture->guest, index), FAKE_BUFFERS + index * FAKE_BUFFER_SIZE,
		size, 0, 0);
	fake_give(&fixture->guest, index);
}

static void expect_frame(struct fake_queue *fixture, size_t size, uint8_t number)
{
	uint8_t bytes[VHOST_USER_HEADER_SIZE + VHOST_USER_FRAME_MAX];

	fake_wait_for(fixture->tap, POLLIN);
	assert_int_equal(recv(fixture->tap, bytes, sizeof(bytes), 0), size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(bytes[i], number);
}

static void test_frames_to_host(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	give_frame(&fixture, 0, HEADER_SIZE + 60, 0x01);
	fake_queue_start(&fixture);
	expect_frame(&fixture, HEADER_SIZE + 60, 0x01);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(fake_used(&fixture.guest)->ring[0].len, 0);
	give_frame(&fixture, 1, HEADER_SIZE + 1514, 0x02);
	fake_queue_kick(&fixture);
	expect_frame(&fixture, HEADER_SIZE + 1514, 0x02);
	fake_queue_wait_for_used(&fixture, 2);
	assert_int_equal(atomic_load(&fixture.queue.counters.packets), 2);
	assert_int_equal(atomic_load(&fixture.queue.counters.bytes), 1574);
	fake_queue_done(&fixture);
}

/* No kick is asked for while frames are there, and none is waited for that isn't sent. */
static void test_kicks_asked_for(void **state)
{
	struct fake_queue fixture;
	const __virtio16 *event;

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	event = (const __virtio16 *)&fake_used(&fixture.guest)->ring[FAKE_RING_SIZE];
	fake_queue_start(&fixture);
	for (uint16_t i = 0; i < 200; i++) {
		give_frame(&fixture, i % FAKE_RING_SIZE, HEADER_SIZE + 60, (uint8_t)i);
		/* As a driver does it. */
		if (vring_need_event(
			    __atomic_load_n(event, __ATOMIC_SEQ_CST), (uint16_t)(i + 1), i))
			fake_queue_kick(&fixture);
		expect_frame(&fixture, HEADER_SIZE + 60, (uint8_t)i);
		fake_queue_wait_for_used(&fixture, (uint16_t)(i + 1));
	}
	fake_queue_done(&fixture);
}

static void test_impossible_sizes(void **state)
{
	struct fake_queue fixture;
	struct fake_guest *guest = &fixture.guest;

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	give_frame(&fixture, 0, HEADER_SIZE + 13, 0x01);
	fake_set(fake_descriptor(guest, 1), 0, HEADER_SIZE + VHOST_USER_FRAME_MAX + 1, 0, 0);
	fake_give(guest, 1);
	give_frame(&fixture, 2, HEADER_SIZE + 14, 0x03);
	fake_queue_start(&fixture);
	expect_frame(&fixture, HEADER_SIZE + 14, 0x03);
	fake_queue_wait_for_used(&fixture, 3);
	assert_int_equal(fake_queue_drops(&fixture), 2);
	fake_queue_done(&fixture);
}

/* A disabled ring is emptied, and nothing of it leaves. */
static void test_disabled(void **state)
{
	struct fake_queue fixture;
	uint8_t byte;

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	fixture.queue.is_enabled = false;
	give_frame(&fixture, 0, HEADER_SIZE + 60, 0x01);
	fake_queue_start(&fixture);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(fake_queue_drops(&fixture), 1);
	assert_int_equal(recv(fixture.tap, &byte, 1, 0), -1);
	fake_queue_done(&fixture);
}

/* The host's side full: frames are lost, not waited for. */
static void test_full_tap(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	fake_queue_start(&fixture);
	for (uint16_t i = 0; fake_queue_drops(&fixture) == 0; i++) {
		assert_true(i < 10000);
		give_frame(&fixture, i % FAKE_RING_SIZE, HEADER_SIZE + 1514, 0x01);
		fake_queue_kick(&fixture);
		fake_queue_wait_for_used(&fixture, (uint16_t)(i + 1));
	}
	fake_queue_done(&fixture);
}

static void test_broken_chain_to_host(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	give_frame(&fixture, 0, HEADER_SIZE + 60, 0x01);
	fake_give(&fixture.guest, FAKE_RING_SIZE);
	fake_queue_start(&fixture);
	fake_queue_assert_broken(&fixture);
	/* What was good before is done. */
	expect_frame(&fixture, HEADER_SIZE + 60, 0x01);
	assert_int_equal(fake_used(&fixture.guest)->idx, 1);
	fake_queue_done(&fixture);
}

static void test_kick_closed(void **state)
{
	struct fake_queue fixture;
	int pipes[2];

	fake_queue_init(&fixture, DIRECTION_VM_TO_HOST);
	assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
	fd_close(fixture.queue.kick);
	fixture.queue.kick = pipes[0];
	fd_close(pipes[1]);
	fake_queue_start(&fixture);
	fake_queue_assert_broken(&fixture);
	assert_string_equal(fixture.queue.ring.fault, "its kick was closed");
	fake_queue_done(&fixture);
}

static void test_needs(void **state)
{
	struct fake_queue fixture;
	const struct vhost_user_memory none = {0};

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	assert_int_equal(vhost_user_queue_resume(&fixture.queue, &none), 0);
	assert_int_equal(fixture.queue.state, VHOST_USER_QUEUE_STOPPED);
	fixture.queue.is_enabled = false;
	assert_int_equal(vhost_user_queue_resume(&fixture.queue, &fixture.guest.memory), 0);
	assert_int_equal(fixture.queue.state, VHOST_USER_QUEUE_STOPPED);
	fixture.queue.is_enabled = true;
	vhost_user_queue_halt(&fixture.queue);
	assert_int_equal(vhost_user_queue_resume(&fixture.queue, &fixture.guest.memory), 0);
	assert_int_equal(fixture.queue.state, VHOST_USER_QUEUE_STOPPED);
	fake_queue_done(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
