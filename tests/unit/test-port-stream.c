#include "helper/port-stream.h"

#include "gathered.h"
#include "helper/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define FRAME_MAX  1514
#define TIMEOUT_MS 10000

struct fixture {
	struct port *port;
	struct batch batch;
	struct gather gather;
	uint8_t outgoing[BATCH_FRAMES][FRAME_MAX];
	struct direction_counters counters;
	int vm;
};

static void open_fixture(struct fixture *fixture, size_t frame_max, bool has_header)
{
	int ends[2];

	*fixture = (struct fixture){0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	fixture->vm = ends[1];
	assert_int_equal(port_stream_open(ends[0], frame_max, has_header, &fixture->port), 0);
	assert_int_equal(batch_init(&fixture->batch, fixture->port), 0);
}

static void close_fixture(struct fixture *fixture)
{
	port_stream_close(fixture->port);
	batch_done(&fixture->batch);
	fd_close(fixture->vm);
}

static int read_batch(struct fixture *fixture)
{
	return fixture->port->operations->read_batch(
		fixture->port, &fixture->batch, &fixture->counters);
}

static ssize_t write_batch(struct fixture *fixture, size_t first)
{
	return fixture->port->operations->write_batch(
		fixture->port, &fixture->gather, first, &fixture->counters);
}

static void send_bytes(const struct fixture *fixture, const void *bytes, size_t size)
{
	assert_int_equal(send(fixture->vm, bytes, size, MSG_NOSIGNAL), size);
}

/* A frame behind its length, of which every byte is number. Returns the bytes it takes. */
static size_t put_frame(uint8_t *bytes, size_t size, uint8_t number)
{
	uint32_t length = htonl((uint32_t)size);

	memcpy(bytes, &length, sizeof(length));
	memset(bytes + sizeof(length), number, size);
	return sizeof(length) + size;
}

static void send_frame(const struct fixture *fixture, size_t size, uint8_t number)
{
	uint8_t bytes[FRAME_MAX + 64];

	send_bytes(fixture, bytes, put_frame(bytes, size, number));
}

static void assert_frame(const struct frame *frame, size_t size, uint8_t number)
{
	assert_int_equal(frame->length, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(frame->data[i], number);
}

static void test_frames_that_come_together(void **state)
{
	const struct virtio_net_hdr_mrg_rxbuf plain = {0};
	struct fixture fixture;

	open_fixture(&fixture, FRAME_MAX, false);
	for (uint8_t i = 0; i < 5; i++)
		send_frame(&fixture, 60u + i, i);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 5);
	for (uint8_t i = 0; i < 5; i++) {
		assert_frame(&fixture.batch.frames[i], 60u + i, i);
		assert_memory_equal(&fixture.batch.frames[i].header, &plain, sizeof(plain));
	}
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 0);
	assert_int_equal(fixture.counters.fast, 1);
	close_fixture(&fixture);
}

/* A frame that comes byte by byte: nothing before the last, then all of it. */
static void test_frame_that_comes_in_pieces(void **state)
{
	uint8_t bytes[2 * FRAME_MAX];
	struct fixture fixture;
	size_t size = put_frame(bytes, 100, 3);

	open_fixture(&fixture, FRAME_MAX, false);
	for (size_t i = 0; i < size; i++) {
		assert_int_equal(read_batch(&fixture), 0);
		assert_int_equal(fixture.batch.count, 0);
		send_bytes(&fixture, bytes + i, 1);
	}
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_frame(&fixture.batch.frames[0], 100, 3);
	close_fixture(&fixture);
}

/* Cut anywhere, what comes out is what went in, and in order. */
static void test_frames_cut_at_any_place(void **state)
{
	uint8_t bytes[4 * 128];
	size_t size = 0;

	for (uint8_t i = 0; i < 4; i++)
		size += put_frame(bytes + size, 60u + i, i);
	for (size_t cut = 1; cut < size; cut++) {
		struct fixture fixture;
		size_t seen = 0;

		open_fixture(&fixture, FRAME_MAX, false);
		for (int half = 0; half < 2; half++) {
			send_bytes(&fixture, half ? bytes + cut : bytes, half ? size - cut : cut);
			assert_int_equal(read_batch(&fixture), 0);
			for (size_t i = 0; i < fixture.batch.count; i++, seen++)
				assert_frame(&fixture.batch.frames[i], 60 + seen, (uint8_t)seen);
		}
		assert_int_equal(seen, 4);
		close_fixture(&fixture);
	}
}

static void test_more_than_a_batch(void **state)
{
	const size_t count = 3 * BATCH_FRAMES + 7;
	static uint8_t bytes[(3 * BATCH_FRAMES + 7) * 64];
	struct fixture fixture;
	size_t size = 0;
	size_t seen = 0;
	int result;

	open_fixture(&fixture, FRAME_MAX, false);
	/* At once, because each message by itself would take more of the queue than its bytes. */
	for (size_t i = 0; i < count; i++)
		size += put_frame(bytes + size, 60, (uint8_t)i);
	send_bytes(&fixture, bytes, size);
	do {
		result = read_batch(&fixture);
		assert_true(result >= 0);
		for (size_t i = 0; i < fixture.batch.count; i++, seen++)
			assert_frame(&fixture.batch.frames[i], 60, (uint8_t)seen);
	} while (result > 0);
	assert_int_equal(seen, count);
	close_fixture(&fixture);
}

static void test_lengths_that_no_port_passes_on_are_counted(void **state)
{
	struct fixture fixture;

	open_fixture(&fixture, FRAME_MAX, false);
	send_frame(&fixture, 0, 0);
	send_frame(&fixture, 13, 1);
	send_frame(&fixture, FRAME_MAX + 1, 2);
	send_frame(&fixture, 14, 3);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_frame(&fixture.batch.frames[0], 14, 3);
	assert_int_equal(fixture.counters.drops, 3);
	close_fixture(&fixture);
}

static void test_garbage_is_the_end_after_what_came_before(void **state)
{
	const uint32_t lengths[] = {htonl(FRAME_SIZE_MAX + 1), 0xffffffff, htonl(1u << 31)};

	for (size_t i = 0; i < array_length(lengths); i++) {
		struct fixture fixture;

		open_fixture(&fixture, FRAME_MAX, false);
		send_frame(&fixture, 60, 1);
		send_bytes(&fixture, &lengths[i], sizeof(lengths[i]));
		send_frame(&fixture, 60, 2);
		assert_int_equal(read_batch(&fixture), 1);
		assert_int_equal(fixture.batch.count, 1);
		assert_frame(&fixture.batch.frames[0], 60, 1);
		assert_int_equal(read_batch(&fixture), -EBADMSG);
		assert_int_equal(fixture.batch.count, 0);
		close_fixture(&fixture);
	}
}

static void test_end_comes_after_the_last_frame(void **state)
{
	struct fixture fixture;

	open_fixture(&fixture, FRAME_MAX, false);
	send_frame(&fixture, 60, 1);
	send_bytes(&fixture, "half", 4);
	fd_close(take_fd(&fixture.vm));
	assert_int_equal(read_batch(&fixture), 1);
	assert_int_equal(fixture.batch.count, 1);
	assert_true(read_batch(&fixture) < 0);
	close_fixture(&fixture);
}

static void fill_gather(struct fixture *fixture, size_t count, size_t size)
{
	gather_clear(&fixture->gather);
	for (size_t i = 0; i < count; i++) {
		memset(fixture->outgoing[i], (int)i, size);
		gather_add(&fixture->gather, fixture->outgoing[i], size, 14);
	}
}

static void receive_exactly(const struct fixture *fixture, void *bytes, size_t size)
{
	struct pollfd fd = {.fd = fixture->vm, .events = POLLIN};

	assert_int_equal(poll(&fd, 1, TIMEOUT_MS), 1);
	assert_int_equal(recv(fixture->vm, bytes, size, MSG_WAITALL), size);
}

static void expect_frame(const struct fixture *fixture, size_t size, uint8_t number)
{
	uint8_t bytes[FRAME_MAX];
	uint32_t length;

	receive_exactly(fixture, &length, sizeof(length));
	assert_int_equal(ntohl(length), size);
	receive_exactly(fixture, bytes, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(bytes[i], number);
}

static void test_a_gather_goes_out_with_one_call(void **state)
{
	struct fixture fixture;

	open_fixture(&fixture, FRAME_MAX, false);
	fill_gather(&fixture, 5, 100);
	assert_int_equal(write_batch(&fixture, 2), 3);
	for (uint8_t i = 2; i < 5; i++)
		expect_frame(&fixture, 100, i);
	assert_int_equal(fixture.counters.packets, 3);
	assert_int_equal(fixture.counters.bytes, 300);
	assert_int_equal(fixture.counters.fast, 1);
	assert_false(fixture.port->has_unsent);
	close_fixture(&fixture);
}

#define MANY_FRAMES (50 * BATCH_FRAMES)

/* The VM, in a thread of its own because the rest of a frame may be yet to come. Returns the
 * fixture when all frames came as they were sent. */
static void *receive_many(void *context)
{
	const struct fixture *fixture = context;
	uint8_t bytes[sizeof(uint32_t) + FRAME_MAX];

	for (size_t i = 0; i < MANY_FRAMES; i++) {
		uint32_t length;

		if (recv(fixture->vm, bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes))
			return NULL;
		memcpy(&length, bytes, sizeof(length));
		if (ntohl(length) != FRAME_MAX || bytes[sizeof(length)] != i % BATCH_FRAMES ||
			bytes[sizeof(bytes) - 1] != i % BATCH_FRAMES)
			return NULL;
	}
	return context;
}

static ssize_t write_some(struct fixture *fixture, size_t sent)
{
	ssize_t taken = write_batch(fixture, sent % BATCH_FRAMES);

	assert_true(taken >= 0);
	return taken;
}

/* Whatever the queue has room for: every frame of many comes out whole, and in order. */
static void test_queue_that_is_always_full(void **state)
{
	const struct timeval limit = {.tv_sec = TIMEOUT_MS / 1000};
	struct fixture fixture;
	pthread_t receiver;
	void *result;
	size_t sent = 0;
	ssize_t taken;

	open_fixture(&fixture, FRAME_MAX, false);
	setsockopt(fixture.vm, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	fill_gather(&fixture, BATCH_FRAMES, FRAME_MAX);
	do {
		taken = write_some(&fixture, sent);
		sent += (size_t)taken;
	} while (taken > 0);
	assert_true(fixture.port->has_unsent);
	assert_int_equal(pthread_create(&receiver, NULL, receive_many, &fixture), 0);
	while (sent < MANY_FRAMES || fixture.port->has_unsent) {
		struct pollfd fd = {.fd = fixture.port->fd, .events = POLLOUT};

		assert_int_equal(poll(&fd, 1, TIMEOUT_MS), 1);
		fixture.gather.count = sent < MANY_FRAMES ? BATCH_FRAMES : sent % BATCH_FRAMES;
		sent += (size_t)write_some(&fixture, sent);
	}
	assert_int_equal(pthread_join(receiver, &result), 0);
	assert_ptr_equal(result, &fixture);
	assert_int_equal(fixture.counters.packets, MANY_FRAMES);
	close_fixture(&fixture);
}

static void test_header_goes_along(void **state)
{
	const struct virtio_net_hdr_mrg_rxbuf header = {.hdr = {.flags = 1, .gso_size = 1448}};
	uint8_t bytes[sizeof(uint32_t) + sizeof(header) + 60];
	struct fixture fixture;
	uint32_t length = htonl(sizeof(header) + 60);

	open_fixture(&fixture, FRAME_MAX, true);
	memcpy(bytes, &length, sizeof(length));
	memcpy(bytes + sizeof(length), &header, sizeof(header));
	memset(bytes + sizeof(length) + sizeof(header), 0, 60);
	send_bytes(&fixture, bytes, sizeof(bytes));
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_frame(&fixture.batch.frames[0], 60, 0);
	assert_memory_equal(&fixture.batch.frames[0].header, &header, sizeof(header));
	fill_gather(&fixture, 1, 60);
	fixture.gather.frames[0].header = header;
	assert_int_equal(write_batch(&fixture, 0), 1);
	{
		uint8_t answer[sizeof(bytes)];

		receive_exactly(&fixture, answer, sizeof(answer));
		assert_memory_equal(answer, bytes, sizeof(bytes));
	}
	length = htonl(sizeof(header) - 1);
	send_bytes(&fixture, &length, sizeof(length));
	assert_int_equal(read_batch(&fixture), -EBADMSG);
	close_fixture(&fixture);
}

static void test_writing_tells_that_the_vm_has_gone(void **state)
{
	struct fixture fixture;

	open_fixture(&fixture, FRAME_MAX, false);
	fd_close(take_fd(&fixture.vm));
	fill_gather(&fixture, 1, 60);
	assert_int_equal(write_batch(&fixture, 0), -ECONNRESET);
	close_fixture(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_that_come_together),
		cmocka_unit_test(test_frame_that_comes_in_pieces),
		cmocka_unit_test(test_frames_cut_at_any_place),
		cmocka_unit_test(test_more_than_a_batch),
		cmocka_unit_test(test_lengths_that_no_port_passes_on_are_counted),
		cmocka_unit_test(test_garbage_is_the_end_after_what_came_before),
		cmocka_unit_test(test_end_comes_after_the_last_frame),
		cmocka_unit_test(test_a_gather_goes_out_with_one_call),
		cmocka_unit_test(test_queue_that_is_always_full),
		cmocka_unit_test(test_header_goes_along),
		cmocka_unit_test(test_writing_tells_that_the_vm_has_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
