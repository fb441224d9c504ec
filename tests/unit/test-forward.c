#include "helper/forward.h"

#include "base/cleanup.h"
#include "helper/port-dgram.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MTU        1500
#define FRAME_MAX  1514
#define TIMEOUT_MS 10000

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t value_of(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void wait_for_value(const _Atomic uint64_t *counter, uint64_t least)
{
	int64_t deadline = now_ms() + TIMEOUT_MS;

	while (value_of(counter) < least) {
		assert_true(now_ms() < deadline);
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
}

static void wait_for_input(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, TIMEOUT_MS), 1);
}

/* A cable between two sockets, of which the tests hold the other ends. */
struct cable {
	int host;
	int vm;
	struct port *host_port;
	struct port *vm_port;
	struct forward forward;
	const struct direction_counters *to_vm;
	const struct direction_counters *to_host;
};

static void connect_end(int type, int *ret_far, struct port **ret_port)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, type, 0, ends), 0);
	*ret_far = ends[1];
	assert_int_equal(port_dgram_open(ends[0], FRAME_MAX, false, ret_port), 0);
}

static void start_cable(struct cable *cable, int vm_type)
{
	connect_end(SOCK_DGRAM, &cable->host, &cable->host_port);
	connect_end(vm_type, &cable->vm, &cable->vm_port);
	assert_int_equal(
		forward_init(&cable->forward, cable->host_port, cable->vm_port, OFFLOAD_NONE, MTU),
		0);
	cable->to_vm = &cable->forward.lanes[DIRECTION_HOST_TO_VM].counters;
	cable->to_host = &cable->forward.lanes[DIRECTION_VM_TO_HOST].counters;
	assert_int_equal(forward_start(&cable->forward), 0);
}

static void end_cable(struct cable *cable)
{
	forward_done(&cable->forward);
	port_dgram_close(cable->host_port);
	port_dgram_close(cable->vm_port);
	fd_close(cable->host);
	fd_close(cable->vm);
}

static size_t frame_size(uint32_t number)
{
	return FRAME_HEADER_SIZE + number % (FRAME_MAX - FRAME_HEADER_SIZE + 1);
}

static void send_frame(int socket, uint32_t number)
{
	uint8_t bytes[FRAME_MAX];

	memset(bytes, (int)number, sizeof(bytes));
	memcpy(bytes, &number, sizeof(number));
	assert_int_equal(send(socket, bytes, frame_size(number), 0), frame_size(number));
}

static void expect_frame(int socket, uint32_t number)
{
	uint8_t bytes[FRAME_MAX + 1];
	uint32_t found;

	wait_for_input(socket);
	assert_int_equal(recv(socket, bytes, sizeof(bytes), 0), frame_size(number));
	memcpy(&found, bytes, sizeof(found));
	assert_int_equal(found, number);
	assert_int_equal(bytes[frame_size(number) - 1], number & 0xff);
}

static void test_frames_pass_both_ways_in_order(void **state)
{
	const uint32_t count = 5000;
	struct cable cable;
	uint64_t bytes = 0;

	start_cable(&cable, SOCK_DGRAM);
	for (uint32_t i = 0; i < count; i++) {
		send_frame(cable.host, i);
		send_frame(cable.vm, i + 7);
		expect_frame(cable.vm, i);
		expect_frame(cable.host, i + 7);
		bytes += frame_size(i);
	}
	forward_stop(&cable.forward);
	assert_int_equal(value_of(&cable.to_vm->packets), count);
	assert_int_equal(value_of(&cable.to_vm->bytes), bytes);
	assert_int_equal(value_of(&cable.to_vm->drops), 0);
	assert_int_equal(value_of(&cable.to_host->packets), count);
	assert_int_equal(value_of(&cable.to_host->drops), 0);
	assert_int_equal(forward_result(&cable.forward, DIRECTION_HOST_TO_VM), 0);
	assert_int_equal(forward_result(&cable.forward, DIRECTION_VM_TO_HOST), 0);
	end_cable(&cable);
}

/* The VM reads nothing: what does not fit is dropped and counted, and nothing else suffers. */
static void test_vm_that_stops_reading(void **state)
{
	struct cable cable;
	uint32_t sent = 0;
	int64_t begun;

	start_cable(&cable, SOCK_DGRAM);
	while (value_of(&cable.to_vm->drops) < 3 * BATCH_FRAMES) {
		send_frame(cable.host, sent++);
		assert_true(sent < 1000000);
	}
	for (uint32_t i = 0; i < 100; i++) {
		send_frame(cable.host, sent++);
		send_frame(cable.vm, i);
		expect_frame(cable.host, i);
	}
	wait_for_value(&cable.to_vm->drops, sent - value_of(&cable.to_vm->packets));
	begun = now_ms();
	forward_stop(&cable.forward);
	assert_true(now_ms() - begun < 5000);
	assert_true(value_of(&cable.to_vm->packets) > 0);
	assert_int_equal(value_of(&cable.to_vm->packets) + value_of(&cable.to_vm->drops), sent);
	for (uint32_t i = 0; i < value_of(&cable.to_vm->packets); i++)
		wait_for_input(cable.vm), recv(cable.vm, &(char){0}, 1, 0);
	assert_int_equal(recv(cable.vm, &(char){0}, 1, MSG_DONTWAIT), -1);
	assert_int_equal(forward_result(&cable.forward, DIRECTION_HOST_TO_VM), 0);
	end_cable(&cable);
}

/* A flood while the queue is full: the stop comes in the middle of the waiting. */
static void test_stop_under_flood(void **state)
{
	struct cable cable;
	int64_t begun;

	start_cable(&cable, SOCK_DGRAM);
	while (value_of(&cable.to_vm->drops) == 0)
		send_frame(cable.host, 1);
	while (send(cable.host, (char[FRAME_MAX]){0}, FRAME_MAX, MSG_DONTWAIT) > 0)
		;
	begun = now_ms();
	forward_stop(&cable.forward);
	assert_true(now_ms() - begun < 5000);
	end_cable(&cable);
}

static void test_illegal_frames_are_dropped_and_counted(void **state)
{
	uint8_t bytes[FRAME_MAX + 1] = {0};
	struct cable cable;

	start_cable(&cable, SOCK_DGRAM);
	assert_int_equal(send(cable.vm, bytes, 0, 0), 0);
	assert_int_equal(send(cable.vm, bytes, 13, 0), 13);
	assert_int_equal(send(cable.vm, bytes, sizeof(bytes), 0), sizeof(bytes));
	send_frame(cable.vm, 42);
	expect_frame(cable.host, 42);
	assert_int_equal(value_of(&cable.to_host->drops), 3);
	assert_int_equal(recv(cable.host, bytes, sizeof(bytes), MSG_DONTWAIT), -1);
	end_cable(&cable);
}

static void test_closed_socket_is_noticed_when_a_frame_comes(void **state)
{
	struct cable cable;

	start_cable(&cable, SOCK_DGRAM);
	fd_close(take_fd(&cable.vm));
	send_frame(cable.host, 1);
	wait_for_input(cable.forward.ended_event);
	assert_int_equal(forward_result(&cable.forward, DIRECTION_HOST_TO_VM), -ECONNRESET);
	assert_int_equal(forward_result(&cable.forward, DIRECTION_VM_TO_HOST), 0);
	end_cable(&cable);
}

static void test_closed_seqpacket_is_noticed_at_once(void **state)
{
	struct cable cable;

	start_cable(&cable, SOCK_SEQPACKET);
	send_frame(cable.vm, 5);
	fd_close(take_fd(&cable.vm));
	expect_frame(cable.host, 5);
	wait_for_input(cable.forward.ended_event);
	assert_int_equal(forward_result(&cable.forward, DIRECTION_VM_TO_HOST), -ECONNRESET);
	end_cable(&cable);
}

/* What the stats timer does, while both directions run; a thread checker has its say here. */
static void test_counters_may_be_read_at_any_time(void **state)
{
	struct cable cable;
	uint64_t before = 0;

	start_cable(&cable, SOCK_DGRAM);
	for (uint32_t i = 0; i < 2000; i++) {
		uint64_t packets;

		send_frame(cable.vm, i);
		send_frame(cable.host, i);
		packets = value_of(&cable.to_host->packets);
		assert_true(packets >= before);
		before = packets;
		expect_frame(cable.host, i);
		expect_frame(cable.vm, i);
		assert_true(value_of(&cable.to_host->drops) == 0);
	}
	end_cable(&cable);
}

/* A port that gives out one batch and takes frames as it was told to. */
struct fake_port {
	struct port port;
	size_t frames;     /* to be read, once */
	int read_error;    /* after them */
	size_t refusals;   /* writes that take nothing, before the first that does */
	size_t taken_each; /* frames a write takes; 0: none ever */
	int write_error;
	_Atomic uint64_t reads;
	_Atomic size_t writes;
	_Atomic size_t taken;
	_Atomic bool is_wrong;
};

static int fake_read(struct port *port, struct batch *batch, struct direction_counters *counters)
{
	struct fake_port *fake = (struct fake_port *)port;
	eventfd_t ignored;

	batch->count = 0;
	atomic_fetch_add(&fake->reads, 1);
	if (fake->frames == 0 && fake->read_error)
		return fake->read_error;
	for (; fake->frames > 0; fake->frames--) {
		struct frame *frame = &batch->frames[batch->count];

		frame->data = batch->memory + batch->count * 64;
		memset(frame->data, (int)batch->count, 60);
		frame->length = 60;
		batch->count++;
	}
	if (!fake->read_error)
		eventfd_read(port->fd, &ignored);
	return batch->count == BATCH_FRAMES;
}

static ssize_t fake_write(
	struct port *port, struct gather *gather, size_t first, struct direction_counters *counters)
{
	struct fake_port *fake = (struct fake_port *)port;
	size_t taken = gather->count - first;

	atomic_fetch_add(&fake->writes, 1);
	if (fake->write_error)
		return fake->write_error;
	if (fake->refusals > 0) {
		fake->refusals--;
		return 0;
	}
	if (taken > fake->taken_each)
		taken = fake->taken_each;
	for (size_t i = first; i < first + taken; i++)
		if (*(uint8_t *)gather->frames[i].parts[1].iov_base != i)
			atomic_store(&fake->is_wrong, true);
	atomic_fetch_add(&fake->taken, taken);
	counter_add(&counters->packets, taken);
	return (ssize_t)taken;
}

static const struct port_operations fake_operations = {
	.name = "fake", .read_batch = fake_read, .write_batch = fake_write};

static void init_fake(struct fake_port *fake)
{
	fake->port.operations = &fake_operations;
	fake->port.memory_size = BATCH_FRAMES * 64;
	fake->port.fd = eventfd(fake->frames > 0, EFD_NONBLOCK);
	assert_true(fake->port.fd >= 0);
}

static void run_fakes(struct fake_port *host, struct fake_port *vm, struct forward *forward)
{
	init_fake(host);
	init_fake(vm);
	assert_int_equal(forward_init(forward, &host->port, &vm->port, OFFLOAD_VNET_HDR, MTU), 0);
	assert_int_equal(forward_start(forward), 0);
}

static void end_fakes(struct fake_port *host, struct fake_port *vm, struct forward *forward)
{
	forward_done(forward);
	close(host->port.fd);
	close(vm->port.fd);
}

static void test_full_queue_is_tried_again(void **state)
{
	struct fake_port host = {.frames = BATCH_FRAMES - 1};
	struct fake_port vm = {.refusals = 4, .taken_each = BATCH_FRAMES / 4};
	struct forward forward;

	run_fakes(&host, &vm, &forward);
	wait_for_value(&forward.lanes[DIRECTION_HOST_TO_VM].counters.packets, BATCH_FRAMES - 1);
	forward_stop(&forward);
	assert_int_equal(vm.writes, 4 + 4);
	assert_int_equal(vm.taken, BATCH_FRAMES - 1);
	assert_false(vm.is_wrong);
	assert_int_equal(forward.lanes[DIRECTION_HOST_TO_VM].counters.drops, 0);
	end_fakes(&host, &vm, &forward);
}

/* A drained port is waited for; after a full batch it is asked once more. */
static void test_port_is_read_no_more_than_needed(void **state)
{
	const size_t frames[] = {1, BATCH_FRAMES - 1, BATCH_FRAMES};
	const size_t reads[] = {1, 1, 2};

	for (size_t i = 0; i < array_length(frames); i++) {
		struct fake_port host = {.frames = frames[i]};
		struct fake_port vm = {.taken_each = BATCH_FRAMES};
		struct forward forward;

		run_fakes(&host, &vm, &forward);
		wait_for_value(&host.reads, reads[i]);
		wait_for_value(&forward.lanes[DIRECTION_HOST_TO_VM].counters.packets, frames[i]);
		forward_stop(&forward);
		assert_int_equal(host.reads, reads[i]);
		assert_int_equal(vm.reads, 0);
		assert_false(host.is_wrong);
		end_fakes(&host, &vm, &forward);
	}
}

static void test_queue_that_stays_full_costs_ten_retries(void **state)
{
	struct fake_port host = {.frames = 20};
	struct fake_port vm = {.taken_each = 0};
	struct forward forward;

	run_fakes(&host, &vm, &forward);
	wait_for_value(&forward.lanes[DIRECTION_HOST_TO_VM].counters.drops, 20);
	forward_stop(&forward);
	assert_int_equal(vm.writes, 11);
	assert_int_equal(forward.lanes[DIRECTION_HOST_TO_VM].counters.drops, 20);
	assert_int_equal(forward.lanes[DIRECTION_HOST_TO_VM].counters.packets, 0);
	end_fakes(&host, &vm, &forward);
}

/* Writes one frame, and that takes until the threads shall end. */
static ssize_t slow_write(
	struct port *port, struct gather *gather, size_t first, struct direction_counters *counters)
{
	struct fake_port *fake = (struct fake_port *)port;
	int64_t deadline = now_ms() + TIMEOUT_MS;

	atomic_fetch_add(&fake->writes, 1);
	while (!port_is_stopping(port) && now_ms() < deadline)
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	counter_add(&counters->packets, port_is_stopping(port));
	return first < gather->count;
}

static const struct port_operations slow_operations = {
	.name = "slow", .read_batch = fake_read, .write_batch = slow_write};

static void test_port_hears_of_a_stop_while_it_writes(void **state)
{
	struct fake_port host = {0};
	struct fake_port vm = {.frames = 20};
	struct forward forward;

	init_fake(&host);
	init_fake(&vm);
	host.port.operations = &slow_operations;
	assert_int_equal(forward_init(&forward, &host.port, &vm.port, OFFLOAD_VNET_HDR, MTU), 0);
	assert_int_equal(forward_start(&forward), 0);
	wait_for_value(&host.writes, 1);
	forward_stop(&forward);
	assert_int_equal(forward.lanes[DIRECTION_VM_TO_HOST].counters.packets, 1);
	assert_int_equal(forward.lanes[DIRECTION_VM_TO_HOST].counters.drops, 19);
	end_fakes(&host, &vm, &forward);
}

static void test_broken_port_ends_its_direction_only(void **state)
{
	struct fake_port host = {.frames = 1, .write_error = -EBADFD};
	struct fake_port vm = {.frames = 1, .taken_each = BATCH_FRAMES};
	struct forward forward;

	run_fakes(&host, &vm, &forward);
	wait_for_input(forward.ended_event);
	assert_int_equal(forward_result(&forward, DIRECTION_VM_TO_HOST), -EBADFD);
	wait_for_value(&forward.lanes[DIRECTION_HOST_TO_VM].counters.packets, 1);
	assert_int_equal(forward_result(&forward, DIRECTION_HOST_TO_VM), 0);
	end_fakes(&host, &vm, &forward);
}

static void test_read_error_is_the_result(void **state)
{
	struct fake_port host = {.frames = 2, .read_error = -EIO};
	struct fake_port vm = {.taken_each = BATCH_FRAMES};
	struct forward forward;

	run_fakes(&host, &vm, &forward);
	wait_for_input(forward.ended_event);
	assert_int_equal(forward_result(&forward, DIRECTION_HOST_TO_VM), -EIO);
	assert_int_equal(vm.taken, 2);
	end_fakes(&host, &vm, &forward);
}

static void test_done_without_start(void **state)
{
	struct fake_port host = {0}, vm = {0};
	struct forward forward;

	init_fake(&host);
	init_fake(&vm);
	assert_int_equal(forward_init(&forward, &host.port, &vm.port, OFFLOAD_NONE, MTU), 0);
	end_fakes(&host, &vm, &forward);
	forward_done(&forward);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_pass_both_ways_in_order),
		cmocka_unit_test(test_vm_that_stops_reading),
		cmocka_unit_test(test_stop_under_flood),
		cmocka_unit_test(test_illegal_frames_are_dropped_and_counted),
		cmocka_unit_test(test_closed_socket_is_noticed_when_a_frame_comes),
		cmocka_unit_test(test_closed_seqpacket_is_noticed_at_once),
		cmocka_unit_test(test_counters_may_be_read_at_any_time),
		cmocka_unit_test(test_full_queue_is_tried_again),
		cmocka_unit_test(test_port_is_read_no_more_than_needed),
		cmocka_unit_test(test_queue_that_stays_full_costs_ten_retries),
		cmocka_unit_test(test_port_hears_of_a_stop_while_it_writes),
		cmocka_unit_test(test_broken_port_ends_its_direction_only),
		cmocka_unit_test(test_read_error_is_the_result),
		cmocka_unit_test(test_done_without_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
