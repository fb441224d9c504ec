#include "helper/cable.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int kind_of_pair(int domain, int type)
{
	int ends[2];
	int kind;

	assert_int_equal(socketpair(domain, type, 0, ends), 0);
	kind = cable_kind_of_socket(ends[0]);
	close(ends[0]);
	close(ends[1]);
	return kind;
}

static int kind_of_one(int domain, int type)
{
	int fd = socket(domain, type, 0);
	int kind = cable_kind_of_socket(fd);

	assert_true(fd >= 0);
	close(fd);
	return kind;
}

static void test_kind_follows_from_the_socket(void **state)
{
	assert_int_equal(kind_of_pair(AF_UNIX, SOCK_DGRAM), CABLE_DGRAM);
	assert_int_equal(kind_of_pair(AF_UNIX, SOCK_SEQPACKET), CABLE_DGRAM);
	assert_int_equal(kind_of_pair(AF_UNIX, SOCK_STREAM), CABLE_STREAM);
}

static void test_what_makes_no_cable(void **state)
{
	int ends[2];

	assert_int_equal(cable_kind_of_socket(999), -EBADF);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(cable_kind_of_socket(ends[0]), -ENOTSOCK);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(kind_of_one(AF_INET, SOCK_DGRAM), -EAFNOSUPPORT);
	assert_int_equal(kind_of_one(AF_UNIX, SOCK_DGRAM), -ENOTCONN);
	assert_int_equal(kind_of_one(AF_UNIX, SOCK_STREAM), -ENOTCONN);
}

static void test_what_is_no_tap_is_refused_and_closed(void **state)
{
	struct cable cable;
	int ends[2], pipe_ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(pipe(pipe_ends), 0);
	cable_init(&cable);
	assert_int_equal(
		cable_open_socket(&cable, CABLE_STREAM, ends[0], pipe_ends[0], OFFLOAD_NONE, 1500),
		-ENOTTY);
	cable_close(&cable);
	assert_int_equal(close(ends[0]), -1);
	assert_int_equal(close(pipe_ends[0]), -1);
	cable_close(&cable);
	close(ends[1]);
	close(pipe_ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kind_follows_from_the_socket),
		cmocka_unit_test(test_what_makes_no_cable),
		cmocka_unit_test(test_what_is_no_tap_is_refused_and_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
