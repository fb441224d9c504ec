/* Against a datagram socket that plays the TAP; what a TAP alone says is put in at the calls. */
#include "helper/port-tap.h"

#include "base/cleanup.h"
#include "helper/forward.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cmocka.h>

#define HEADER_SIZE sizeof(struct virtio_net_hdr_mrg_rxbuf)

static int read_error;     /* what the next reads say; 0: what the socket says */
static size_t error_reads; /* how many of them; the frame at the head is lost each time */

ssize_t __real_readv(int fd, const struct iovec *parts, int count);
ssize_t __wrap_readv(int fd, const struct iovec *parts, int count);
int __wrap_ioctl(int fd, unsigned long request, ...);

ssize_t __wrap_readv(int fd, const struct iovec *parts, int count)
{
	ssize_t size = __real_readv(fd, parts, count);

	if (error_reads == 0)
		return size;
	error_reads--;
	errno = read_error;
	return -1;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	return 0;
}

struct tap {
	int far;
	struct port *port;
	struct batch batch;
	struct direction_counters counters;
};

static int set_up(void **state)
{
	struct tap *tap = calloc(1, sizeof(*tap));
	int ends[2];

	assert_non_null(tap);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	tap->far = ends[1];
	assert_int_equal(port_tap_open(ends[0], OFFLOAD_NONE, &tap->port), 0);
	assert_int_equal(batch_init(&tap->batch, tap->port), 0);
	error_reads = 0;
	*state = tap;
	return 0;
}

static int tear_down(void **state)
{
	struct tap *tap = *state;

	port_tap_close(tap->port);
	batch_done(&tap->batch);
	fd_close(tap->far);
	free(tap);
	return 0;
}

static void send_frame(struct tap *tap, size_t length)
{
	uint8_t bytes[HEADER_SIZE + 2000] = {0};

	memset(bytes + HEADER_SIZE, (int)length, length);
	assert_int_equal(send(tap->far, bytes, HEADER_SIZE + length, 0), HEADER_SIZE + length);
}

static int read_batch(struct tap *tap)
{
	return tap->port->operations->read_batch(tap->port, &tap->batch, &tap->counters);
}

static void expect_frame(const struct tap *tap, size_t index, size_t length)
{
	assert_true(index < tap->batch.count);
	assert_int_equal(tap->batch.frames[index].length, length);
	assert_int_equal(tap->batch.frames[index].data[length - 1], length & 0xff);
}

static void test_frames_come_as_they_were_sent(void **state)
{
	struct tap *tap = *state;

	send_frame(tap, 60);
	send_frame(tap, FRAME_HEADER_SIZE - 1);
	send_frame(tap, 1514);
	assert_int_equal(read_batch(tap), 0);
	assert_int_equal(tap->batch.count, 2);
	expect_frame(tap, 0, 60);
	expect_frame(tap, 1, 1514);
	assert_int_equal(tap->counters.drops, 1);
}

static void test_frame_that_has_no_header_is_lost_alone(void **state)
{
	struct tap *tap = *state;

	send_frame(tap, 60);
	send_frame(tap, 61);
	read_error = EINVAL;
	error_reads = 1;
	assert_int_equal(read_batch(tap), 0);
	assert_int_equal(tap->batch.count, 1);
	expect_frame(tap, 0, 61);
	assert_int_equal(tap->counters.drops, 1);
}

/* Else nobody would hear of a stop. */
static void test_reading_ends_where_nothing_good_comes(void **state)
{
	struct tap *tap = *state;

	read_error = EINVAL;
	error_reads = 1000 * BATCH_FRAMES;
	assert_int_equal(read_batch(tap), 1);
	assert_int_equal(tap->batch.count, 0);
	assert_int_equal(tap->counters.drops, BATCH_FRAMES);
}

static void test_deleted_tap_ends(void **state)
{
	struct tap *tap = *state;

	read_error = EBADFD;
	error_reads = 1;
	assert_int_equal(read_batch(tap), -EBADFD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_frames_come_as_they_were_sent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_frame_that_has_no_header_is_lost_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_reading_ends_where_nothing_good_comes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_deleted_tap_ends, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
