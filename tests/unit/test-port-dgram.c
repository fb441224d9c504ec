#include "helper/port-dgram.h"

#include "gathered.h"
#include "helper/forward.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
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

static void open_fixture_with(struct fixture *fixture, int type, size_t frame_max, bool has_header)
{
	int ends[2];

	*fixture = (struct fixture){0};
	assert_int_equal(socketpair(AF_UNIX, type, 0, ends), 0);
	fixture->vm = ends[1];
	assert_int_equal(port_dgram_open(ends[0], frame_max, has_header, &fixture->port), 0);
	assert_int_equal(batch_init(&fixture->batch, fixture->port), 0);
}

static void open_fixture(struct fixture *fixture, int type)
{
	open_fixture_with(fixture, type, FRAME_MAX, false);
}

static void close_fixture(struct fixture *fixture)
{
	port_dgram_close(fixture->port);
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

/* A frame of which every byte says who it is. */
static void send_frame(int socket, size_t size, uint8_t number)
{
	uint8_t bytes[FRAME_MAX + 16];

	memset(bytes, number, sizeof(bytes));
	assert_int_equal(send(socket, bytes, size, MSG_NOSIGNAL), size);
}

static void assert_frame(const struct frame *frame, size_t size, uint8_t number)
{
	assert_int_equal(frame->length, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(frame->data[i], number);
}

static void fill_gather(struct fixture *fixture, size_t count, size_t size)
{
	gather_clear(&fixture->gather);
	for (size_t i = 0; i < count; i++) {
		memset(fixture->outgoing[i], (int)i, size);
		gather_add(&fixture->gather, fixture->outgoing[i], size, 14);
	}
}

static void assert_received(int socket, size_t size, uint8_t number)
{
	uint8_t bytes[FRAME_MAX + 16];

	assert_int_equal(recv(socket, bytes, sizeof(bytes), MSG_DONTWAIT), size);
	assert_int_equal(bytes[0], number);
	assert_int_equal(bytes[size - 1], number);
}

static void test_only_frames_of_legal_length_pass(void **state)
{
	const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};

	for (size_t i = 0; i < array_length(types); i++) {
		struct fixture fixture;

		open_fixture(&fixture, types[i]);
		send_frame(fixture.vm, 0, 0);
		send_frame(fixture.vm, 13, 1);
		send_frame(fixture.vm, 14, 2);
		send_frame(fixture.vm, FRAME_MAX + 1, 3);
		send_frame(fixture.vm, FRAME_MAX, 4);
		send_frame(fixture.vm, 0, 5);
		assert_int_equal(read_batch(&fixture), 0);
		assert_int_equal(fixture.batch.count, 2);
		assert_frame(&fixture.batch.frames[0], 14, 2);
		assert_frame(&fixture.batch.frames[1], FRAME_MAX, 4);
		assert_int_equal(fixture.counters.drops, 4);
		assert_int_equal(fixture.counters.packets, 0);
		close_fixture(&fixture);
	}
}

static void test_frames_come_without_offloads(void **state)
{
	static const struct virtio_net_hdr_mrg_rxbuf plain;
	struct fixture fixture;

	open_fixture(&fixture, SOCK_DGRAM);
	memset(&fixture.batch.frames[0].header, 0xff, sizeof(plain));
	send_frame(fixture.vm, 60, 1);
	assert_int_equal(read_batch(&fixture), 0);
	assert_memory_equal(&fixture.batch.frames[0].header, &plain, sizeof(plain));
	close_fixture(&fixture);
}

static void test_reading_never_waits_and_takes_a_batch(void **state)
{
	struct fixture fixture;
	size_t extra = 3;

	open_fixture(&fixture, SOCK_DGRAM);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 0);
	for (size_t i = 0; i < BATCH_FRAMES + extra; i++)
		send_frame(fixture.vm, 60, (uint8_t)i);
	assert_int_equal(read_batch(&fixture), 1);
	assert_int_equal(fixture.batch.count, BATCH_FRAMES);
	assert_frame(&fixture.batch.frames[BATCH_FRAMES - 1], 60, BATCH_FRAMES - 1);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, extra);
	assert_frame(&fixture.batch.frames[0], 60, BATCH_FRAMES);
	assert_int_equal(fixture.counters.fast, 2);
	assert_int_equal(fixture.counters.slow, 0);
	close_fixture(&fixture);
}

static void test_writing_counts_what_was_taken(void **state)
{
	struct fixture fixture;

	open_fixture(&fixture, SOCK_DGRAM);
	fill_gather(&fixture, 5, 100);
	assert_int_equal(write_batch(&fixture, 2), 3);
	for (uint8_t i = 2; i < 5; i++)
		assert_received(fixture.vm, 100, i);
	assert_int_equal(fixture.counters.packets, 3);
	assert_int_equal(fixture.counters.bytes, 300);
	assert_int_equal(fixture.counters.fast, 1);
	assert_int_equal(write_batch(&fixture, 4), 1);
	assert_int_equal(fixture.counters.slow, 1);
	assert_int_equal(fixture.counters.drops, 0);
	close_fixture(&fixture);
}

static size_t write_until_full(struct fixture *fixture)
{
	size_t total = 0;
	ssize_t taken;

	do {
		taken = write_batch(fixture, 0);
		assert_true(taken >= 0);
		total += (size_t)taken;
	} while ((size_t)taken == fixture->gather.count);
	return total;
}

static void test_full_queue_is_no_error(void **state)
{
	struct fixture fixture;
	size_t queued;

	open_fixture(&fixture, SOCK_DGRAM);
	fill_gather(&fixture, BATCH_FRAMES, FRAME_MAX);
	queued = write_until_full(&fixture);
	assert_true(queued > 0);
	assert_int_equal(write_batch(&fixture, 0), 0);
	assert_int_equal(fixture.counters.packets, queued);
	assert_int_equal(fixture.counters.drops, 0);
	assert_received(fixture.vm, FRAME_MAX, 0);
	assert_int_equal(write_batch(&fixture, BATCH_FRAMES - 1), 1);
	close_fixture(&fixture);
}

static void test_frame_that_never_fits_is_dropped_alone(void **state)
{
	static uint8_t huge[FRAME_SIZE_MAX];
	struct fixture fixture;
	const int smallest = 1;

	open_fixture(&fixture, SOCK_DGRAM);
	assert_int_equal(
		setsockopt(fixture.port->fd, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof(smallest)),
		0);
	fill_gather(&fixture, 2, 60);
	fixture.gather.frames[0].parts[2] = (struct iovec){huge, sizeof(huge)};
	assert_int_equal(write_batch(&fixture, 0), 1);
	assert_int_equal(fixture.counters.drops, 1);
	assert_int_equal(write_batch(&fixture, 1), 1);
	assert_received(fixture.vm, 60, 1);
	close_fixture(&fixture);
}

static void test_header_goes_along(void **state)
{
	struct virtio_net_hdr_mrg_rxbuf header = {.hdr = {.flags = 1, .gso_size = 1448}};
	uint8_t message[sizeof(header) + 60];
	uint8_t answer[sizeof(message) + 1];
	struct fixture fixture;

	open_fixture_with(&fixture, SOCK_DGRAM, FRAME_MAX, true);
	memcpy(message, &header, sizeof(header));
	memset(message + sizeof(header), 7, 60);
	assert_int_equal(send(fixture.vm, message, sizeof(header) + 13, 0), sizeof(header) + 13);
	assert_int_equal(send(fixture.vm, message, sizeof(message), 0), sizeof(message));
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_int_equal(fixture.counters.drops, 1);
	assert_frame(&fixture.batch.frames[0], 60, 7);
	assert_memory_equal(&fixture.batch.frames[0].header, &header, sizeof(header));
	fill_gather(&fixture, 1, 60);
	fixture.gather.frames[0].header = header;
	assert_int_equal(write_batch(&fixture, 0), 1);
	assert_int_equal(recv(fixture.vm, answer, sizeof(answer), 0), sizeof(message));
	assert_memory_equal(answer, &header, sizeof(header));
	assert_int_equal(answer[sizeof(header)], 0);
	close_fixture(&fixture);
}

/* With the largest frames there are fewer of them in a batch, and no more memory. */
static void test_largest_frames(void **state)
{
	static uint8_t huge[FRAME_SIZE_MAX + 1];
	struct fixture fixture;

	open_fixture_with(&fixture, SOCK_DGRAM, FRAME_SIZE_MAX, false);
	assert_true(fixture.batch.memory_size <= 1 << 20);
	assert_int_equal(send(fixture.vm, huge, sizeof(huge), 0), sizeof(huge));
	memset(huge, 9, sizeof(huge));
	assert_int_equal(send(fixture.vm, huge, FRAME_SIZE_MAX, 0), FRAME_SIZE_MAX);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_frame(&fixture.batch.frames[0], FRAME_SIZE_MAX, 9);
	assert_int_equal(fixture.counters.drops, 1);
	close_fixture(&fixture);
}

static void test_writing_tells_that_the_vm_has_gone(void **state)
{
	const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};

	for (size_t i = 0; i < array_length(types); i++) {
		struct fixture fixture;

		open_fixture(&fixture, types[i]);
		fd_close(take_fd(&fixture.vm));
		fill_gather(&fixture, 1, 60);
		assert_int_equal(write_batch(&fixture, 0), -ECONNRESET);
		/* The kernel's second answer on a datagram socket is another. */
		assert_int_equal(write_batch(&fixture, 0), -ECONNRESET);
		close_fixture(&fixture);
	}
}

static void test_seqpacket_end_comes_after_its_frames(void **state)
{
	struct fixture fixture;

	open_fixture(&fixture, SOCK_SEQPACKET);
	send_frame(fixture.vm, 60, 1);
	send_frame(fixture.vm, 60, 2);
	fd_close(take_fd(&fixture.vm));
	assert_int_equal(read_batch(&fixture), 1);
	assert_int_equal(fixture.batch.count, 2);
	assert_int_equal(read_batch(&fixture), -ECONNRESET);
	assert_int_equal(fixture.counters.drops, 0);
	close_fixture(&fixture);
}

static int bound_socket(const char *directory, const char *name, struct sockaddr_un *ret_address)
{
	int bound = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%.64s/%.16s", directory,
		name);
	assert_int_equal(bind(bound, (struct sockaddr *)ret_address, sizeof(*ret_address)), 0);
	return bound;
}

static void send_with_fd(int socket, int fd)
{
	char frame[60] = {0};
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec part = {.iov_base = frame, .iov_len = sizeof(frame)};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	*header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	assert_int_equal(sendmsg(socket, &message, 0), sizeof(frame));
}

/* Who passed the socket on may shut down its own copy: readable for ever, and nothing to read. */
static void test_socket_that_was_shut_down_is_an_end(void **state)
{
	static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};

	for (size_t i = 0; i < array_length(types); i++) {
		struct fixture fixture;

		open_fixture(&fixture, types[i]);
		send_frame(fixture.vm, 60, 1);
		assert_int_equal(shutdown(fixture.port->fd, SHUT_RD), 0);
		assert_true(read_batch(&fixture) >= 0);
		assert_int_equal(fixture.batch.count, 1);
		assert_int_equal(read_batch(&fixture), -ECONNRESET);
		close_fixture(&fixture);
	}
}

/* Frames of two clients wait when the port's socket is connected to one of them. */
static void test_strangers_frames_are_dropped(void **state)
{
	char directory[] = "/tmp/test-port-dgram-XXXXXX";
	struct fixture fixture = {.vm = -1};
	struct sockaddr_un ours, client_address, stranger_address;
	int server, client, stranger;
	int ends[2];
	char byte;

	assert_non_null(mkdtemp(directory));
	server = bound_socket(directory, "server", &ours);
	client = bound_socket(directory, "client", &client_address);
	stranger = bound_socket(directory, "stranger", &stranger_address);
	assert_int_equal(connect(client, (struct sockaddr *)&ours, sizeof(ours)), 0);
	assert_int_equal(connect(stranger, (struct sockaddr *)&ours, sizeof(ours)), 0);
	send_frame(client, 60, 1);
	send_frame(stranger, 60, 2);
	send_frame(client, 60, 3);
	assert_int_equal(pipe(ends), 0);
	send_with_fd(client, ends[1]);
	close(ends[1]);
	assert_int_equal(
		connect(server, (struct sockaddr *)&client_address, sizeof(client_address)), 0);
	assert_int_equal(port_dgram_open(server, FRAME_MAX, false, &fixture.port), 0);
	assert_int_equal(batch_init(&fixture.batch, fixture.port), 0);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 3);
	assert_frame(&fixture.batch.frames[0], 60, 1);
	assert_frame(&fixture.batch.frames[1], 60, 3);
	assert_int_equal(fixture.counters.drops, 1);
	assert_int_equal(read(ends[0], &byte, 1), 0);
	close(ends[0]);
	assert_int_equal(send(stranger, directory, 14, 0), -1);
	assert_int_equal(errno, EPERM);
	send_frame(client, 60, 4);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_frame(&fixture.batch.frames[0], 60, 4);
	close_fixture(&fixture);
	close(client);
	close(stranger);
	unlink(ours.sun_path);
	unlink(client_address.sun_path);
	unlink(stranger_address.sun_path);
	rmdir(directory);
}

static bool has_answer(const struct fixture *fixture)
{
	struct pollfd fd = {.fd = port_dgram_sender_event(fixture->port), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static bool asks_for_credentials(const struct fixture *fixture)
{
	int value = -1;
	socklen_t size = sizeof(value);

	assert_int_equal(getsockopt(fixture->port->fd, SOL_SOCKET, SO_PASSCRED, &value, &size), 0);
	return value != 0;
}

static pid_t send_from_child(struct fixture *fixture, size_t size)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		char bytes[FRAME_MAX] = {0};

		_exit(send(fixture->vm, bytes, size, 0) == (ssize_t)size ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	return child;
}

static void test_sender_is_found(void **state)
{
	const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};

	for (size_t i = 0; i < array_length(types); i++) {
		struct fixture fixture;
		pid_t child;

		open_fixture(&fixture, types[i]);
		assert_int_equal(port_dgram_find_sender(fixture.port), 0);
		send_from_child(&fixture, 4);
		assert_int_equal(read_batch(&fixture), 0);
		assert_false(has_answer(&fixture));
		child = send_from_child(&fixture, 60);
		assert_int_equal(read_batch(&fixture), 0);
		assert_int_equal(fixture.batch.count, 1);
		assert_true(has_answer(&fixture));
		assert_int_equal(port_dgram_sender(fixture.port), child);
		assert_false(asks_for_credentials(&fixture));
		close_fixture(&fixture);
	}
}

/* Frames that were queued before the question have no sender, which is no answer. */
static void test_older_frames_do_not_end_a_search(void **state)
{
	struct fixture fixture;
	pid_t child;

	open_fixture(&fixture, SOCK_DGRAM);
	send_from_child(&fixture, 60);
	send_from_child(&fixture, 60);
	assert_int_equal(port_dgram_find_sender(fixture.port), 0);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 2);
	assert_false(has_answer(&fixture));
	assert_true(asks_for_credentials(&fixture));
	child = send_from_child(&fixture, 60);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(port_dgram_sender(fixture.port), child);
	close_fixture(&fixture);
}

static void test_a_second_search_finds_the_next_sender(void **state)
{
	struct fixture fixture;
	eventfd_t answers;
	pid_t child;

	open_fixture(&fixture, SOCK_DGRAM);
	assert_int_equal(port_dgram_find_sender(fixture.port), 0);
	send_from_child(&fixture, 60);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(eventfd_read(port_dgram_sender_event(fixture.port), &answers), 0);
	send_from_child(&fixture, 60);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_false(has_answer(&fixture));
	assert_int_equal(port_dgram_find_sender(fixture.port), 0);
	child = send_from_child(&fixture, 60);
	assert_int_equal(read_batch(&fixture), 0);
	assert_true(has_answer(&fixture));
	assert_int_equal(port_dgram_sender(fixture.port), child);
	close_fixture(&fixture);
}

/* What comes beside a frame is not for us: an fd would stay open for ever. */
static void test_fds_beside_a_frame_are_not_kept(void **state)
{
	struct fixture fixture;
	int ends[2];
	char byte;

	open_fixture(&fixture, SOCK_DGRAM);
	assert_int_equal(port_dgram_find_sender(fixture.port), 0);
	assert_int_equal(pipe(ends), 0);
	send_with_fd(fixture.vm, ends[1]);
	close(ends[1]);
	assert_int_equal(read_batch(&fixture), 0);
	assert_int_equal(fixture.batch.count, 1);
	assert_int_equal(port_dgram_sender(fixture.port), getpid());
	assert_int_equal(read(ends[0], &byte, 1), 0);
	close(ends[0]);
	close_fixture(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_frames_of_legal_length_pass),
		cmocka_unit_test(test_frames_come_without_offloads),
		cmocka_unit_test(test_reading_never_waits_and_takes_a_batch),
		cmocka_unit_test(test_writing_counts_what_was_taken),
		cmocka_unit_test(test_full_queue_is_no_error),
		cmocka_unit_test(test_frame_that_never_fits_is_dropped_alone),
		cmocka_unit_test(test_header_goes_along),
		cmocka_unit_test(test_largest_frames),
		cmocka_unit_test(test_writing_tells_that_the_vm_has_gone),
		cmocka_unit_test(test_seqpacket_end_comes_after_its_frames),
		cmocka_unit_test(test_socket_that_was_shut_down_is_an_end),
		cmocka_unit_test(test_strangers_frames_are_dropped),
		cmocka_unit_test(test_sender_is_found),
		cmocka_unit_test(test_older_frames_do_not_end_a_search),
		cmocka_unit_test(test_a_second_search_finds_the_next_sender),
		cmocka_unit_test(test_fds_beside_a_frame_are_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
