/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "fake-broker.h"

#include "base/cleanup.h"
#include "client/connection.h"

#include <poll.h>
#include <string.h>
#include <sys/wait.h>

/* --- a broker that goes away --- */

static void a_call_finds_a_restarted_broker(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();

	assert_int_equal(vmnet_broker_acquire(handle, "host", NULL), VMNET_BROKER_SUCCESS);
	fake_broker_stop();
	assert_int_equal(
		vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_CONNECTION_FAILURE);
	assert_non_null(strstr(vmnet_broker_reason(handle), broker_path));
	fake_broker_start(MANNER_ANSWER);
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	/* What was held before comes first. */
	assert_int_equal(broker.acquired[1], 1);
	assert_int_equal(broker.acquired[0], 1);
	vmnet_broker_close(handle);
}

static void a_connection_lost_within_a_call_is_tried_once_more(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();

	broker.manner = MANNER_HANG_ONCE;
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.peers_accepted, 2);
	broker.manner = MANNER_HANG_UP;
	assert_int_equal(
		vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_CONNECTION_FAILURE);
	/* The old connection, and one new one. */
	assert_int_equal(broker.peers_accepted, 3);
	vmnet_broker_close(handle);
}

static vmnet_broker_status_t dispatch_when_readable(vmnet_broker_t *handle)
{
	struct pollfd waiter = {.fd = vmnet_broker_get_fd(handle), .events = POLLIN};

	assert_int_equal(poll(&waiter, 1, DEADLINE_MS), 1);
	return vmnet_broker_dispatch(handle);
}

static void dispatch_until(vmnet_broker_t *handle, vmnet_broker_status_t status)
{
	int64_t deadline = deadline_after(DEADLINE_MS);

	while (dispatch_when_readable(handle) != status)
		assert_false(deadline_has_passed(deadline));
}

static void dispatch_acquires_again_after_a_restart(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	int fd = vmnet_broker_get_fd(handle);
	struct pollfd waiter = {.fd = fd, .events = POLLIN};

	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(vmnet_broker_acquire(handle, "host", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(poll(&waiter, 1, 0), 0);
	assert_int_equal(vmnet_broker_dispatch(handle), VMNET_BROKER_SUCCESS);
	fake_broker_stop();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(dispatch_when_readable(handle), VMNET_BROKER_CONNECTION_FAILURE);
		assert_non_null(strstr(vmnet_broker_reason(handle), broker_path));
	}
	fake_broker_start(MANNER_ANSWER);
	dispatch_until(handle, VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.acquired[0], 1);
	assert_int_equal(broker.acquired[1], 1);
	assert_int_equal(vmnet_broker_get_fd(handle), fd);
	vmnet_broker_close(handle);
}

static void dispatch_asks_again_when_refused(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();

	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(vmnet_broker_acquire(handle, "host", NULL), VMNET_BROKER_SUCCESS);
	fake_broker_stop();
	fake_broker_start(MANNER_REFUSE);
	broker.refusal = "org.vmnet.Broker.CreateFailure";
	do {
		assert_int_equal(dispatch_when_readable(handle), VMNET_BROKER_CONNECTION_FAILURE);
	} while (strcmp(vmnet_broker_reason(handle), "because") != 0);
	broker.manner = MANNER_ANSWER;
	dispatch_until(handle, VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.peers_accepted, 1);
	vmnet_broker_close(handle);
}

static void a_call_waits_for_what_dispatch_began(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	int64_t deadline = deadline_after(DEADLINE_MS);

	assert_int_equal(vmnet_broker_acquire(handle, "host", NULL), VMNET_BROKER_SUCCESS);
	fake_broker_stop();
	fake_broker_start(MANNER_ANSWER);
	/* Sends the call, and does not wait for the answer. */
	while (broker.peers_accepted == 0) {
		vmnet_broker_dispatch(handle);
		assert_false(deadline_has_passed(deadline));
	}
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.acquired[1], 1);
	assert_int_equal(vmnet_broker_dispatch(handle), VMNET_BROKER_SUCCESS);
	vmnet_broker_close(handle);
}

static void a_silent_broker_is_not_waited_for_in_dispatch(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();

	assert_int_equal(vmnet_broker_acquire(handle, "host", NULL), VMNET_BROKER_SUCCESS);
	fake_broker_stop();
	fake_broker_start(MANNER_SILENT);
	/* The alarm would end the test. */
	alarm(DEADLINE_MS / 1000);
	for (int i = 0; i < 10; i++)
		assert_int_equal(vmnet_broker_dispatch(handle), VMNET_BROKER_CONNECTION_FAILURE);
	alarm(0);
	vmnet_broker_close(handle);
}

/* --- the process-wide connection --- */

static vmnet_broker_status_t acquire_for_process(const char *name)
{
	vmnet_broker_status_t status = VMNET_BROKER_INTERNAL_ERROR;
	struct vmnet_broker_network *network = vmnet_broker_acquire_network(name, &status);

	assert_int_equal(!network, status != VMNET_BROKER_SUCCESS);
	if (network)
		assert_string_equal(network->name, name);
	free(network);
	return status;
}

static void a_process_has_one_connection(void **state)
{
	int status;
	pid_t pid;

	setenv("VMNET_BROKER_SOCKET", broker_path, 1);
	assert_int_equal(acquire_for_process("shared"), VMNET_BROKER_SUCCESS);
	assert_int_equal(acquire_for_process("host"), VMNET_BROKER_SUCCESS);
	assert_int_equal(acquire_for_process("no name"), VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(broker.peers_accepted, 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(acquire_for_process("shared") == VMNET_BROKER_SUCCESS ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(broker.peers_accepted, 2);
	/* The child's doings have not touched the parent's connection. */
	assert_int_equal(acquire_for_process("shared"), VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.peers_accepted, 2);
	fake_broker_stop();
	assert_int_equal(acquire_for_process("shared"), VMNET_BROKER_CONNECTION_FAILURE);
	fake_broker_start(MANNER_ANSWER);
	assert_int_equal(acquire_for_process("shared"), VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.acquired[1], 1);
	unsetenv("VMNET_BROKER_SOCKET");
}

static void an_inherited_handle_is_refused(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int failed = vmnet_broker_acquire(handle, "shared", NULL) !=
				     VMNET_BROKER_CONNECTION_FAILURE ||
			     vmnet_broker_dispatch(handle) != VMNET_BROKER_CONNECTION_FAILURE;

		vmnet_broker_close(handle);
		_exit(failed);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	fake_broker_stop();
	/* Still told of it, although the child closed its copies. */
	assert_int_equal(dispatch_when_readable(handle), VMNET_BROKER_CONNECTION_FAILURE);
	fake_broker_start(MANNER_ANSWER);
	vmnet_broker_close(handle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		broker_test(a_call_finds_a_restarted_broker),
		broker_test(a_connection_lost_within_a_call_is_tried_once_more),
		broker_test(dispatch_acquires_again_after_a_restart),
		broker_test(dispatch_asks_again_when_refused),
		broker_test(a_call_waits_for_what_dispatch_began),
		broker_test(a_silent_broker_is_not_waited_for_in_dispatch),
		broker_test(a_process_has_one_connection),
		broker_test(an_inherited_handle_is_refused),
	};
	int failures;

	if (fake_broker_make_directory() < 0)
		return 1;
	failures = cmocka_run_group_tests(tests, NULL, NULL);
	fake_broker_remove_directory();
	return failures;
}
