/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/fdpass.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

struct pair {
	int left, right;
};

static int make_pair(void **state)
{
	static struct pair pair;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
		return -1;
	pair = (struct pair){.left = ends[0], .right = ends[1]};
	*state = &pair;
	return 0;
}

static int free_pair(void **state)
{
	struct pair *pair = *state;

	fd_close(pair->left);
	fd_close(pair->right);
	return 0;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* The lowest free number: it stays the same when nothing leaks. */
static int lowest_free_fd(void)
{
	int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);

	assert_true(fd >= 0);
	fd_close(fd);
	return fd;
}

static bool is_same_file(int a, int b)
{
	struct stat a_status, b_status;

	assert_int_equal(fstat(a, &a_status), 0);
	assert_int_equal(fstat(b, &b_status), 0);
	return a_status.st_dev == b_status.st_dev && a_status.st_ino == b_status.st_ino;
}

static void fds_arrive_with_their_bytes(void **state)
{
	struct pair *pair = *state;
	int sent[2] = {pair->left, pair->right};
	struct fd_list received;
	char buffer[16];

	assert_int_equal(fd_send(pair->left, "hello", 5, sent, 2), 5);
	assert_int_equal(fd_receive(pair->right, buffer, sizeof(buffer), &received), 5);
	assert_memory_equal(buffer, "hello", 5);
	assert_int_equal(received.count, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_true(is_same_file(received.fds[i], sent[i]));
		assert_int_not_equal(received.fds[i], sent[i]);
		assert_int_equal(fcntl(received.fds[i], F_GETFD), FD_CLOEXEC);
	}
	for (size_t i = 2; i < FD_PASS_MAX; i++)
		assert_int_equal(received.fds[i], -1);
	fd_list_done(&received);
	assert_int_equal(received.count, 0);
}

static void bytes_arrive_without_fds(void **state)
{
	struct pair *pair = *state;
	struct fd_list received = {.count = 77};
	char buffer[16];

	assert_int_equal(fd_send(pair->left, "hello", 5, NULL, 0), 5);
	assert_int_equal(fd_receive(pair->right, buffer, 2, &received), 2);
	assert_int_equal(received.count, 0);
	assert_int_equal(received.fds[0], -1);
	assert_int_equal(fd_receive(pair->right, buffer, sizeof(buffer), &received), 3);
	assert_memory_equal(buffer, "llo", 3);
}

static void the_end_and_emptiness_differ(void **state)
{
	struct pair *pair = *state;
	struct fd_list received = {.count = 77};
	char buffer[16];

	assert_int_equal(fd_receive(pair->right, buffer, sizeof(buffer), &received), -EAGAIN);
	assert_int_equal(received.count, 77);
	fd_close(take_fd(&pair->left));
	assert_int_equal(fd_receive(pair->right, buffer, sizeof(buffer), &received), 0);
	assert_int_equal(received.count, 0);
	/* SIGPIPE would end the test here. */
	assert_int_equal(fd_send(pair->right, "x", 1, NULL, 0), -EPIPE);
}

static void a_full_socket_is_reported(void **state)
{
	static const char buffer[65536];
	struct pair *pair = *state;
	ssize_t sent;

	do {
		sent = fd_send(pair->left, buffer, sizeof(buffer), NULL, 0);
	} while (sent > 0);
	assert_int_equal(sent, -EAGAIN);
}

static void senders_have_limits(void **state)
{
	struct pair *pair = *state;
	int fds[FD_PASS_MAX + 1];
	struct fd_list received;
	char byte;

	for (size_t i = 0; i < array_length(fds); i++)
		fds[i] = pair->left;
	assert_int_equal(fd_send(pair->left, "x", 1, fds, FD_PASS_MAX + 1), -EINVAL);
	assert_int_equal(fd_send(pair->left, "", 0, fds, 1), -EINVAL);
	assert_int_equal(fd_receive(pair->right, &byte, 1, &received), -EAGAIN);
	assert_int_equal(fd_send(pair->left, "x", 1, fds, FD_PASS_MAX), 1);
	assert_int_equal(fd_receive(pair->right, &byte, 1, &received), 1);
	assert_int_equal(received.count, FD_PASS_MAX);
	fd_list_done(&received);
}

/* What fd_send() refuses to send. */
static void send_fds_raw(int socket, int fd, size_t count)
{
	char control[CMSG_SPACE(sizeof(int) * 64)] = {0};
	struct iovec part = {.iov_base = (char[]){'x'}, .iov_len = 1};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(sizeof(int) * count)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int) * count);
	for (size_t i = 0; i < count; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof(int));
	assert_int_equal(sendmsg(socket, &message, 0), 1);
}

static void too_many_fds_leave_nothing_open(void **state)
{
	static const size_t counts[] = {FD_PASS_MAX + 1, FD_PASS_MAX + 2, FD_PASS_MAX + 3, 64};
	struct pair *pair = *state;

	for (size_t i = 0; i < array_length(counts); i++) {
		int before = lowest_free_fd();
		struct fd_list received = {.count = 77};
		char byte;

		send_fds_raw(pair->left, pair->left, counts[i]);
		assert_int_equal(fd_receive(pair->right, &byte, 1, &received), -EBADMSG);
		assert_int_equal(received.count, 77);
		assert_int_equal(lowest_free_fd(), before);
	}
}

static void cut_datagrams_are_refused(void **state)
{
	struct fd_list received = {.count = 77};
	char buffer[2];
	int before = lowest_free_fd(), ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(fd_send(ends[0], "hello", 5, ends, 1), 5);
	assert_int_equal(fd_receive(ends[1], buffer, sizeof(buffer), &received), -EBADMSG);
	assert_int_equal(received.count, 77);
	fd_close(ends[0]);
	fd_close(ends[1]);
	assert_int_equal(lowest_free_fd(), before);
}

static void an_fd_is_taken_once(void **state)
{
	struct pair *pair = *state;
	struct fd_list list;
	int taken, left;

	fd_list_init(&list);
	assert_int_equal(fd_list_take(&list, 0), -EBADF);
	list.fds[0] = fcntl(pair->left, F_DUPFD_CLOEXEC, 0);
	list.fds[1] = left = fcntl(pair->left, F_DUPFD_CLOEXEC, 0);
	list.count = 2;
	taken = fd_list_take(&list, 0);
	assert_true(is_open(taken));
	assert_int_equal(fd_list_take(&list, 0), -EBADF);
	assert_int_equal(fd_list_take(&list, 2), -EBADF);
	assert_int_equal(fd_list_take(&list, SIZE_MAX), -EBADF);
	fd_list_done(&list);
	assert_true(is_open(taken));
	assert_false(is_open(left));
	fd_close(taken);
	fd_list_done(&list);
}

#define pair_test(function) cmocka_unit_test_setup_teardown(function, make_pair, free_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		pair_test(fds_arrive_with_their_bytes),
		pair_test(bytes_arrive_without_fds),
		pair_test(the_end_and_emptiness_differ),
		pair_test(a_full_socket_is_reported),
		pair_test(senders_have_limits),
		pair_test(too_many_fds_leave_nothing_open),
		cmocka_unit_test(cut_datagrams_are_refused),
		pair_test(an_fd_is_taken_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
