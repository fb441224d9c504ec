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

#define HEADER_SIZE VHOST_USER_HEADER_SIZE
#define WRITE       VRING_DESC_F_WRITE

static void give_buffers(struct fake_queue *fixture, uint16_t first, uint16_t count)
{
	for (uint16_t i = first; i < first + count; i++) {
		fake_set(fake_descriptor(&fixture->guest, i), FAKE_BUFFERS + i * FAKE_BUFFER_SIZE,
			FAKE_BUFFER_SIZE, WRITE, 0);
		fake_give(&fixture->guest, i);
	}
}

static void send_frame(struct fake_queue *fixture, size_t size, uint8_t number)
{
	static uint8_t bytes[HEADER_SIZE + VHOST_USER_FRAME_MAX + 100];

	memset(bytes, number, sizeof(bytes));
	fake_wait_for(fixture->tap, POLLOUT);
	assert_int_equal(send(fixture->tap, bytes, HEADER_SIZE + size, 0), HEADER_SIZE + size);
}

static uint16_t buffer_count(const struct fake_queue *fixture, size_t index)
{
	uint16_t count;

	memcpy(&count,
		fake_queue_buffer(fixture, index) +
			offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers),
		sizeof(count));
	return count;
}

static void test_frame_into_one_buffer(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0xaa);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(fake_used(&fixture.guest)->ring[0].id, 0);
	assert_int_equal(fake_used(&fixture.guest)->ring[0].len, HEADER_SIZE + 60);
	assert_int_equal(buffer_count(&fixture, 0), 1);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE], 0xaa);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE + 59], 0xaa);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE + 60], 0);
	assert_int_equal(atomic_load(&fixture.queue.counters.packets), 1);
	assert_int_equal(atomic_load(&fixture.queue.counters.bytes), 60);
	fake_queue_done(&fixture);
}

static void test_frame_over_buffers(void **state)
{
	const size_t size = 3 * FAKE_BUFFER_SIZE;
	struct fake_queue fixture;
	const struct vring_used *used;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	used = fake_used(&fixture.guest);
	give_buffers(&fixture, 0, 16);
	fake_queue_start(&fixture);
	send_frame(&fixture, size, 0xbb);
	fake_queue_wait_for_used(&fixture, 4);
	assert_int_equal(buffer_count(&fixture, 0), 4);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(used->ring[i].len, FAKE_BUFFER_SIZE);
	assert_int_equal(used->ring[3].len, HEADER_SIZE);
	assert_int_equal(fake_queue_buffer(&fixture, 3)[HEADER_SIZE - 1], 0xbb);
	assert_int_equal(fake_queue_buffer(&fixture, 3)[HEADER_SIZE], 0);
	/* The next one goes on behind it. */
	send_frame(&fixture, 60, 0xcc);
	fake_queue_wait_for_used(&fixture, 5);
	assert_int_equal(used->ring[4].id, 4);
	assert_int_equal(buffer_count(&fixture, 4), 1);
	fake_queue_done(&fixture);
}

/* The header's last field lies at the guest's mercy. */
static void test_header_in_pieces(void **state)
{
	struct fake_queue fixture;
	struct fake_guest *guest = &fixture.guest;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fake_set(fake_descriptor(guest, 0), FAKE_BUFFERS, 11, WRITE | VRING_DESC_F_NEXT, 1);
	fake_set(fake_descriptor(guest, 1), FAKE_BUFFERS + 100, 4000, WRITE, 0);
	fake_give(guest, 0);
	fixture.queue.frame_max = 1518;
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0xee);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 10], 1);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 11], 0);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 100], 0);
	assert_int_equal(guest->bytes[FAKE_BUFFERS + 101], 0xee);
	fake_queue_done(&fixture);
}

/* A ring that never has room for the largest frame takes the smaller ones, and loses the others. */
static void test_few_buffers(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 2);
	fake_queue_start(&fixture);
	send_frame(&fixture, 3 * FAKE_BUFFER_SIZE, 0x11);
	send_frame(&fixture, 60, 0x22);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE], 0x22);
	assert_int_equal(fake_queue_drops(&fixture), 1);
	fake_queue_done(&fixture);
}

/* More buffers than one readv takes, though too small for the largest frame: what fits has to do.
 */
static void test_buffers_of_many_parts(void **state)
{
	const uint16_t parts = 600;
	struct fake_queue fixture;
	struct vring_desc *table;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	table = (struct vring_desc *)(fixture.guest.bytes + FAKE_REGION_SIZE);
	for (uint16_t i = 0; i < parts; i++)
		fake_set(&table[i], FAKE_BUFFERS + i * 32u, 32,
			i + 1 < parts ? WRITE | VRING_DESC_F_NEXT : WRITE, (uint16_t)(i + 1));
	for (uint16_t i = 0; i < 2; i++) {
		fake_set(fake_descriptor(&fixture.guest, i), FAKE_REGION_SIZE,
			parts * sizeof(*table), VRING_DESC_F_INDIRECT, 0);
		fake_give(&fixture.guest, i);
	}
	fake_queue_start(&fixture);
	for (uint16_t i = 0; i < 2; i++) {
		send_frame(&fixture, 60, (uint8_t)(0x71 + i));
		fake_queue_wait_for_used(&fixture, (uint16_t)(i + 1));
		assert_int_equal(fixture.guest.bytes[FAKE_BUFFERS + 32], 0x71 + i);
	}
	fake_queue_done(&fixture);
}

/* A guest that had few buffers for a while, and has enough again, loses no large frame. */
static void test_enough_again(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 2);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x21);
	fake_queue_wait_for_used(&fixture, 1);
	give_buffers(&fixture, 2, 14);
	fake_queue_kick(&fixture);
	send_frame(&fixture, 15 * FAKE_BUFFER_SIZE - HEADER_SIZE, 0x22);
	fake_queue_wait_for_used(&fixture, 16);
	assert_int_equal(buffer_count(&fixture, 1), 15);
	assert_int_equal(fake_queue_drops(&fixture), 0);
	fake_queue_done(&fixture);
}

/* As small as a buffer may be where frames are merged (virtio 1.2, 5.1.6.3.1). */
static void test_smallest_buffers(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	for (uint16_t i = 0; i < FAKE_RING_SIZE; i++) {
		fake_set(fake_descriptor(&fixture.guest, i), FAKE_BUFFERS + i * HEADER_SIZE,
			HEADER_SIZE, WRITE, 0);
		fake_give(&fixture.guest, i);
	}
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x31);
	fake_queue_wait_for_used(&fixture, 6);
	assert_int_equal(buffer_count(&fixture, 0), 6);
	assert_int_equal(fixture.guest.bytes[FAKE_BUFFERS + HEADER_SIZE], 0x31);
	assert_int_equal(fixture.guest.bytes[FAKE_BUFFERS + HEADER_SIZE + 59], 0x31);
	assert_int_equal(fixture.guest.bytes[FAKE_BUFFERS + HEADER_SIZE + 60], 0);
	fake_queue_done(&fixture);
}

/* Frames do not wait one by one for buffers that a small ring never has: the guest is called for
 * all of them at once, beside the call at each start. */
static void test_small_ring_waits_once(void **state)
{
	const uint16_t count = FAKE_RING_SIZE / 2;
	struct fake_queue fixture;
	eventfd_t calls = 0;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.place.has_event_index = false;
	give_buffers(&fixture, 0, FAKE_RING_SIZE);
	fake_queue_start(&fixture);
	vhost_user_queue_pause(&fixture.queue);
	for (uint16_t i = 0; i < count; i++)
		send_frame(&fixture, 60, (uint8_t)i);
	fake_queue_start(&fixture);
	while (calls < 3 ||
		__atomic_load_n(&fake_used(&fixture.guest)->idx, __ATOMIC_SEQ_CST) < count) {
		eventfd_t more;

		fake_wait_for(fixture.call, POLLIN);
		assert_int_equal(eventfd_read(fixture.call, &more), 0);
		calls += more;
	}
	assert_int_equal(calls, 3);
	fake_queue_done(&fixture);
}

/* Buffers that come later count, whether the device had given up waiting for them or not. */
static void test_more_buffers(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.frame_max = 2 * FAKE_BUFFER_SIZE - HEADER_SIZE;
	give_buffers(&fixture, 0, 2);
	fake_queue_start(&fixture);
	for (uint16_t i = 0; i < 8; i += 2) {
		send_frame(&fixture, 60, 0x10);
		fake_queue_wait_for_used(&fixture, (uint16_t)(i + i / 2 + 1));
		give_buffers(&fixture, (uint16_t)(i + i / 2 + 2), 1);
		fake_queue_kick(&fixture);
		send_frame(&fixture, FAKE_BUFFER_SIZE + 100, 0x20);
		fake_queue_wait_for_used(&fixture, (uint16_t)(i + i / 2 + 3));
		give_buffers(&fixture, (uint16_t)(i + i / 2 + 3), 2);
		fake_queue_kick(&fixture);
	}
	assert_int_equal(fake_queue_drops(&fixture), 0);
	fake_queue_done(&fixture);
}

static void test_waits_for_buffers(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x33);
	give_buffers(&fixture, 0, 16);
	fake_queue_kick(&fixture);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE], 0x33);
	assert_int_equal(fake_queue_drops(&fixture), 0);
	fake_queue_done(&fixture);
}

static void test_without_merging(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.has_merging = false;
	give_buffers(&fixture, 0, 3);
	fake_queue_start(&fixture);
	send_frame(&fixture, FAKE_BUFFER_SIZE, 0x44); /* with its header too long */
	send_frame(&fixture, 60, 0x55);
	send_frame(&fixture, FAKE_BUFFER_SIZE - HEADER_SIZE, 0x66);
	fake_queue_wait_for_used(&fixture, 2);
	assert_int_equal(fake_queue_drops(&fixture), 1);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE], 0x55);
	assert_int_equal(buffer_count(&fixture, 1), 1);
	assert_int_equal(fake_queue_buffer(&fixture, 1)[FAKE_BUFFER_SIZE - 1], 0x66);
	fake_queue_done(&fixture);
}

static void test_legacy_header(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.has_merging = false;
	fixture.queue.header_size = VHOST_USER_LEGACY_HEADER_SIZE;
	give_buffers(&fixture, 0, 1);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x77);
	fake_queue_wait_for_used(&fixture, 1);
	/* No count is written where the frame begins. */
	assert_int_equal(fake_queue_buffer(&fixture, 0)[VHOST_USER_LEGACY_HEADER_SIZE], 0x77);
	assert_int_equal(atomic_load(&fixture.queue.counters.bytes), 62);
	fake_queue_done(&fixture);
}

/* What waited for a guest that was away is not for the one that comes. */
static void test_stale_frames(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	send_frame(&fixture, 60, 0x01);
	send_frame(&fixture, 60, 0x02);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x03);
	fake_queue_wait_for_used(&fixture, 1);
	assert_int_equal(fake_queue_buffer(&fixture, 0)[HEADER_SIZE], 0x03);
	assert_int_equal(fake_queue_drops(&fixture), 2);
	fake_queue_done(&fixture);
}

/* A pause is no absence: nothing is lost, and buffers that were looked at are there again. */
static void test_pause(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	fake_queue_start(&fixture);
	for (uint16_t i = 0; i < 8; i++) {
		vhost_user_queue_pause(&fixture.queue);
		assert_int_equal(fixture.queue.position, i);
		send_frame(&fixture, 60, (uint8_t)(0x80 + i));
		fake_queue_start(&fixture);
		fake_queue_wait_for_used(&fixture, (uint16_t)(i + 1));
		assert_int_equal(fake_used(&fixture.guest)->ring[i].id, i);
		assert_int_equal(fake_queue_buffer(&fixture, i)[HEADER_SIZE], 0x80 + i);
	}
	assert_int_equal(fake_queue_drops(&fixture), 0);
	fake_queue_done(&fixture);
}

/* A device that was killed had used three; the front-end, which can't know, says 5. */
static void test_goes_on_at_the_used_index(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	give_buffers(&fixture, 0, 16);
	fake_used(&fixture.guest)->idx = 3;
	vhost_user_queue_begin(&fixture.queue, 5);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x99);
	fake_queue_wait_for_used(&fixture, 4);
	assert_int_equal(fake_used(&fixture.guest)->ring[3].id, 3);
	fake_queue_done(&fixture);
}

static void test_broken_and_begun_anew(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.failure = eventfd(0, EFD_NONBLOCK);
	fake_give(&fixture.guest, 99);
	fake_queue_start(&fixture);
	fake_queue_assert_broken(&fixture);
	fake_wait_for(fixture.queue.failure, POLLIN);
	fake_avail(&fixture.guest)->idx = 0;
	give_buffers(&fixture, 0, 16);
	vhost_user_queue_begin(&fixture.queue, 0);
	fake_queue_start(&fixture);
	send_frame(&fixture, 60, 0x12);
	fake_queue_wait_for_used(&fixture, 1);
	fake_queue_done(&fixture);
}

static void test_buffer_too_small(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.has_merging = *(const bool *)*state;
	fake_set(fake_descriptor(&fixture.guest, 0), FAKE_BUFFERS,
		fixture.queue.has_merging ? HEADER_SIZE - 1 : HEADER_SIZE + 13, WRITE, 0);
	fake_give(&fixture.guest, 0);
	fake_queue_start(&fixture);
	fake_queue_assert_broken(&fixture);
	assert_string_equal(fixture.queue.ring.fault, "a buffer too small for any frame");
	fake_queue_done(&fixture);
}

static void test_tap_gone(void **state)
{
	struct fake_queue fixture;

	fake_queue_init(&fixture, DIRECTION_HOST_TO_VM);
	fixture.queue.tap = -1;
	give_buffers(&fixture, 0, 16);
	fake_queue_start(&fixture);
	fake_wait_for(fixture.ended, POLLIN);
	assert_int_equal(atomic_load(&fixture.queue.result), -EBADF);
	vhost_user_queue_pause(&fixture.queue);
	assert_int_equal(fixture.queue.breaks, 0);
	fake_queue_done(&fixture);
}

int main(void)
{
	static bool with_merging = true, without_merging = false;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_into_one_buffer),
		cmocka_unit_test(test_frame_over_buffers),
		cmocka_unit_test(test_header_in_pieces),
		cmocka_unit_test(test_few_buffers),
		cmocka_unit_test(test_buffers_of_many_parts),
		cmocka_unit_test(test_enough_again),
		cmocka_unit_test(test_smallest_buffers),
		cmocka_unit_test(test_small_ring_waits_once),
		cmocka_unit_test(test_more_buffers),
		cmocka_unit_test(test_waits_for_buffers),
		cmocka_unit_test(test_without_merging),
		cmocka_unit_test(test_legacy_header),
		cmocka_unit_test(test_stale_frames),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_goes_on_at_the_used_index),
		cmocka_unit_test(test_broken_and_begun_anew),
		cmocka_unit_test_prestate(test_buffer_too_small, &with_merging),
		cmocka_unit_test_prestate(test_buffer_too_small, &without_merging),
		cmocka_unit_test(test_tap_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
