#include "helper/vhost-user-protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define HEADER_SIZE sizeof(struct vhost_user_header)

struct fixture {
	int front, back;
	struct vhost_user_message message;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	fixture->front = ends[0];
	fixture->back = ends[1];
	fd_list_init(&fixture->message.fds);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	vhost_user_message_reset(&fixture->message);
	close(fixture->front);
	close(fixture->back);
	free(fixture);
	return 0;
}

/* The header and size bytes of payload, of which the table's count may be given. */
static size_t compose(
	uint8_t *bytes, uint32_t request, uint32_t flags, uint32_t size, uint32_t count)
{
	const struct vhost_user_header header = {request, flags, size};

	memset(bytes, 0, 1024);
	memcpy(bytes, &header, HEADER_SIZE);
	memcpy(bytes + HEADER_SIZE, &count, sizeof(count));
	return HEADER_SIZE + size;
}

static int exchange(
	struct fixture *fixture, uint32_t request, uint32_t flags, uint32_t size, size_t fds_count)
{
	const int fds[] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0};
	uint8_t bytes[1024];
	size_t length = compose(bytes, request, flags, size, (uint32_t)fds_count);

	assert_int_equal(fd_send(fixture->front, bytes, length, fds, fds_count), length);
	return vhost_user_message_receive(fixture->back, &fixture->message);
}

static void test_whole_message(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(vhost_user_message_receive(fixture->back, &fixture->message), 0);
	assert_int_equal(exchange(fixture, VHOST_USER_SET_FEATURES, 1, 8, 0), 1);
	assert_int_equal(fixture->message.header.request, VHOST_USER_SET_FEATURES);
	vhost_user_message_reset(&fixture->message);
	assert_int_equal(exchange(fixture, VHOST_USER_SET_VRING_KICK, 1, 8, 1), 1);
	assert_int_equal(fixture->message.fds.count, 1);
}

static void test_byte_by_byte(void **state)
{
	struct fixture *fixture = *state;
	uint8_t bytes[1024];
	size_t length = compose(bytes, VHOST_USER_SET_VRING_CALL, 1, 8, 0);
	int fd = 0;

	for (size_t i = 0; i < length; i++) {
		assert_int_equal(fd_send(fixture->front, bytes + i, 1, &fd, i == 0), 1);
		assert_int_equal(vhost_user_message_receive(fixture->back, &fixture->message),
			i + 1 == length);
	}
	assert_int_equal(fixture->message.fds.count, 1);
}

/* Two messages at once: the second one waits. */
static void test_two_messages(void **state)
{
	struct fixture *fixture = *state;
	uint8_t bytes[1024];
	size_t length = compose(bytes, VHOST_USER_GET_FEATURES, 1, 0, 0);

	assert_int_equal(fd_send(fixture->front, bytes, length, NULL, 0), length);
	assert_int_equal(exchange(fixture, VHOST_USER_SET_OWNER, 1, 0, 0), 1);
	assert_int_equal(fixture->message.header.request, VHOST_USER_GET_FEATURES);
	vhost_user_message_reset(&fixture->message);
	assert_int_equal(vhost_user_message_receive(fixture->back, &fixture->message), 1);
	assert_int_equal(fixture->message.header.request, VHOST_USER_SET_OWNER);
}

struct bad_message {
	uint32_t request, flags, size;
	size_t fds_count;
};

static const struct bad_message bad_messages[] = {
	{0, 1, 0, 0},
	{6, 1, 16, 0}, /* SET_LOG_BASE: not offered */
	{VHOST_USER_REQUEST_COUNT, 1, 0, 0},
	{UINT32_MAX, 1, 0, 0},
	{VHOST_USER_GET_FEATURES, 0, 0, 0},
	{VHOST_USER_GET_FEATURES, 2, 0, 0},
	{VHOST_USER_GET_FEATURES, 1 | VHOST_USER_REPLY, 0, 0},
	{VHOST_USER_GET_FEATURES, 1, 8, 0},
	{VHOST_USER_GET_FEATURES, 1, 0, 1},
	{VHOST_USER_SET_FEATURES, 1, 7, 0},
	{VHOST_USER_SET_FEATURES, 1, 9, 0},
	{VHOST_USER_SET_FEATURES, 1, 0, 0},
	{VHOST_USER_SET_VRING_KICK, 1, 8, 2},
	{VHOST_USER_SET_VRING_ADDR, 1, 39, 0},
	{VHOST_USER_SET_MEM_TABLE, 1, 8 + 32, 0}, /* the count says 0 */
	{VHOST_USER_SET_MEM_TABLE, 1, 8 + 32, 2}, /* the count says 2 */
	{VHOST_USER_SET_MEM_TABLE, 1, 8 + 9 * 32, 9},
	{VHOST_USER_SET_MEM_TABLE, 1, 4, 0},
	{VHOST_USER_ADD_MEM_REG, 1, 40, 2},
	{VHOST_USER_ADD_MEM_REG, 1, 32, 1},
};

static void test_bad_messages(void **state)
{
	for (size_t i = 0; i < sizeof(bad_messages) / sizeof(bad_messages[0]); i++) {
		const struct bad_message *bad = &bad_messages[i];
		void *own = NULL;

		set_up(&own);
		assert_int_equal(exchange(own, bad->request, bad->flags, bad->size, bad->fds_count),
			-EBADMSG);
		tear_down(&own);
	}
}

/* A count that the message's fds and size confirm. */
static void test_table(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(exchange(fixture, VHOST_USER_SET_MEM_TABLE, 1, 8 + 8 * 32, 8), 1);
	vhost_user_message_reset(&fixture->message);
	assert_int_equal(exchange(fixture, VHOST_USER_SET_MEM_TABLE, 1, 8, 0), 1);
}

static void test_fds_twice(void **state)
{
	struct fixture *fixture = *state;
	uint8_t bytes[1024];
	size_t length = compose(bytes, VHOST_USER_SET_VRING_CALL, 1, 8, 0);
	int fd = 0;

	assert_int_equal(fd_send(fixture->front, bytes, HEADER_SIZE, &fd, 1), HEADER_SIZE);
	assert_int_equal(fd_send(fixture->front, bytes + HEADER_SIZE, length - HEADER_SIZE, &fd, 1),
		length - HEADER_SIZE);
	assert_int_equal(vhost_user_message_receive(fixture->back, &fixture->message), -EBADMSG);
}

static int count_open_fds(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void test_fds_are_closed(void **state)
{
	struct fixture *fixture = *state;
	int before = count_open_fds();

	assert_int_equal(exchange(fixture, VHOST_USER_SET_MEM_TABLE, 1, 8 + 8 * 32, 8), 1);
	assert_int_equal(count_open_fds(), before + 8);
	vhost_user_message_reset(&fixture->message);
	assert_int_equal(count_open_fds(), before);
}

static void test_end(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(shutdown(fixture->front, SHUT_WR), 0);
	assert_int_equal(vhost_user_message_receive(fixture->back, &fixture->message), -ECONNRESET);
}

static void test_reply(void **state)
{
	struct fixture *fixture = *state;
	struct {
		struct vhost_user_header header;
		uint64_t number;
	} __attribute__((packed)) reply;
	uint64_t number = 0x1122334455667788;

	assert_int_equal(
		exchange(fixture, VHOST_USER_GET_FEATURES, 1 | VHOST_USER_NEED_REPLY, 0, 0), 1);
	assert_int_equal(
		vhost_user_message_reply(fixture->back, &fixture->message, &number, sizeof(number)),
		0);
	assert_int_equal(recv(fixture->front, &reply, sizeof(reply), 0), sizeof(reply));
	assert_int_equal(reply.header.request, VHOST_USER_GET_FEATURES);
	assert_int_equal(reply.header.flags, VHOST_USER_VERSION | VHOST_USER_REPLY);
	assert_int_equal(reply.header.size, 8);
	assert_int_equal(reply.number, number);
}

/* A front-end that asks and does not listen stops nobody. */
static void test_reply_without_reader(void **state)
{
	struct fixture *fixture = *state;
	uint64_t number = 0;
	int error = 0;

	fixture->message.header.request = VHOST_USER_GET_FEATURES;
	for (int i = 0; i < 1000000 && !error; i++)
		error = vhost_user_message_reply(
			fixture->back, &fixture->message, &number, sizeof(number));
	assert_int_equal(error, -EAGAIN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_whole_message),
		TEST(test_byte_by_byte),
		TEST(test_two_messages),
		cmocka_unit_test(test_bad_messages),
		TEST(test_table),
		TEST(test_fds_twice),
		TEST(test_fds_are_closed),
		TEST(test_end),
		TEST(test_reply),
		TEST(test_reply_without_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
