#include "helper/peer-watch.h"

#include "base/cleanup.h"
#include "helper/forward.h"
#include "helper/port-dgram.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define FRAME_MAX  1514
#define TIMEOUT_MS 10000

/* The tests are the reading thread as well: each step reads, then asks the watch. */
struct fixture {
	struct port *port;
	struct batch batch;
	struct direction_counters counters;
	struct peer_watch watch;
	int vm;
};

static int make_fixture(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0)
		return -1;
	fixture->vm = ends[1];
	if (port_dgram_open(ends[0], FRAME_MAX, false, &fixture->port) < 0)
		return -1;
	if (batch_init(&fixture->batch, fixture->port) < 0)
		return -1;
	*state = fixture;
	return peer_watch_init(&fixture->watch, fixture->port);
}

static int remove_fixture(void **state)
{
	struct fixture *fixture = *state;

	peer_watch_done(&fixture->watch);
	port_dgram_close(fixture->port);
	batch_done(&fixture->batch);
	close(fixture->vm);
	free(fixture);
	return 0;
}

static enum peer_watch_state step(struct fixture *fixture, int timeout_ms)
{
	struct pollfd fds[PEER_WATCH_FDS];

	assert_int_equal(fixture->port->operations->read_batch(
				 fixture->port, &fixture->batch, &fixture->counters),
		0);
	peer_watch_fill(&fixture->watch, fds);
	assert_true(poll(fds, PEER_WATCH_FDS, timeout_ms) >= 0);
	return peer_watch_dispatch(&fixture->watch, fds);
}

/* A process that sends a frame whenever it gets SIGUSR1, until it is ended. */
static pid_t start_vm(const struct fixture *fixture)
{
	sigset_t wanted;
	pid_t child;

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	child = fork();
	assert_true(child >= 0);
	if (child > 0)
		return child;
	for (;;) {
		char frame[60] = {0};
		int signal_number;

		sigwait(&wanted, &signal_number);
		send(fixture->vm, frame, sizeof(frame), 0);
	}
}

static void send_frame(const struct fixture *fixture, pid_t vm)
{
	struct pollfd fd = {.fd = fixture->port->fd, .events = POLLIN};

	assert_int_equal(kill(vm, SIGUSR1), 0);
	assert_int_equal(poll(&fd, 1, TIMEOUT_MS), 1);
}

static void end_vm(pid_t vm)
{
	assert_int_equal(kill(vm, SIGKILL), 0);
	assert_int_equal(waitpid(vm, NULL, 0), vm);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_nothing_is_known_before_a_frame(void **state)
{
	assert_int_equal(step(*state, 0), PEER_WATCH_UNKNOWN);
}

static void test_death_is_noticed_after_the_recheck(void **state)
{
	struct fixture *fixture = *state;
	pid_t vm = start_vm(fixture);
	double died;

	send_frame(fixture, vm);
	assert_int_equal(step(fixture, 0), PEER_WATCH_ALIVE);
	assert_int_equal(step(fixture, 0), PEER_WATCH_ALIVE);
	end_vm(vm);
	died = now_s();
	assert_int_equal(step(fixture, TIMEOUT_MS), PEER_WATCH_RECHECKING);
	assert_int_equal(step(fixture, TIMEOUT_MS), PEER_WATCH_GONE);
	assert_true(now_s() - died >= 0.9);
	assert_true(now_s() - died < 5);
}

static void test_socket_that_was_handed_on(void **state)
{
	struct fixture *fixture = *state;
	pid_t launcher = start_vm(fixture);
	pid_t vm = start_vm(fixture);

	send_frame(fixture, launcher);
	assert_int_equal(step(fixture, 0), PEER_WATCH_ALIVE);
	end_vm(launcher);
	assert_int_equal(step(fixture, TIMEOUT_MS), PEER_WATCH_RECHECKING);
	send_frame(fixture, vm);
	assert_int_equal(step(fixture, 0), PEER_WATCH_ALIVE);
	end_vm(vm);
	assert_int_equal(step(fixture, TIMEOUT_MS), PEER_WATCH_RECHECKING);
	assert_int_equal(step(fixture, TIMEOUT_MS), PEER_WATCH_GONE);
}

/* Its frame comes when its pid is already nobody's. */
static void test_sender_that_is_dead_already(void **state)
{
	struct fixture *fixture = *state;
	pid_t vm = start_vm(fixture);

	send_frame(fixture, vm);
	end_vm(vm);
	assert_int_equal(step(fixture, 0), PEER_WATCH_RECHECKING);
	assert_int_equal(step(fixture, TIMEOUT_MS), PEER_WATCH_GONE);
}

#define test_with_port(name) cmocka_unit_test_setup_teardown(name, make_fixture, remove_fixture)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_port(test_nothing_is_known_before_a_frame),
		test_with_port(test_death_is_noticed_after_the_recheck),
		test_with_port(test_socket_that_was_handed_on),
		test_with_port(test_sender_that_is_dead_already),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
