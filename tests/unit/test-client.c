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
#include "wire/messages.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* --- calls --- */

static void expect_network(const struct vmnet_broker_network *network, const char *name)
{
	assert_string_equal(network->name, name);
	assert_string_equal(network->mode, "shared");
	assert_int_equal(ntohl(network->subnet.s_addr), 0xc0a84000);
	assert_int_equal(ntohl(network->mask.s_addr), 0xffffff00);
	assert_int_equal(ntohl(network->gateway.s_addr), 0xc0a84001);
	assert_int_equal(network->mtu, 1500);
	assert_string_equal(network->bridge, "vmbr01234567");
	assert_string_equal(network->domain, "shared.vmnet");
}

static void a_network_is_acquired(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_network network;

	assert_int_equal(vmnet_broker_acquire(handle, "host", &network), VMNET_BROKER_SUCCESS);
	expect_network(&network, "host");
	assert_int_equal(vmnet_broker_acquire(handle, "host", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.acquired[1], 2);
	assert_int_equal(broker.peers_accepted, 1);
	vmnet_broker_close(handle);
	vmnet_broker_close(NULL);
}

static void an_interface_arrives_with_its_queues(void **state)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_interface_options options = {
		.mac = mac, .hostname = "web", .queues = 2};
	struct vmnet_broker_interface interface;
	struct stat first, null;

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, options.sockets), 0);
	options.sockets_count = 2;
	assert_int_equal(vmnet_broker_create_interface(handle, "shared", &options, &interface),
		VMNET_BROKER_SUCCESS);
	expect_network(&interface.network, "shared");
	assert_string_equal(interface.name, "vmtap00000001");
	assert_memory_equal(interface.mac, mac, 6);
	assert_int_equal(ntohl(interface.address.s_addr), 0xc0a84002);
	assert_int_equal(interface.socket_buffer_bytes, 4711);
	assert_int_equal(interface.queues_count, 2);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(fcntl(interface.queues[i], F_GETFD), FD_CLOEXEC);
	/* The answer's index 1 is the first queue. */
	assert_int_equal(fstat(interface.queues[0], &first), 0);
	assert_int_equal(stat("/dev/zero", &null), 0);
	assert_int_equal(first.st_rdev, null.st_rdev);
	vmnet_broker_close(handle);
	fake_broker_stop();
	assert_int_equal(broker.sockets_received, 2);
	fake_broker_start(MANNER_ANSWER);
	for (size_t i = 0; i < 2; i++) {
		fd_close(interface.queues[i]);
		fd_close(options.sockets[i]);
	}
}

static void options_are_sent_as_given(void **state)
{
	static const uint8_t interface_id[16] = {0x6d, 0x6b, 0x1f, 0x5c};
	struct vmnet_broker_interface_options options = {
		.interface_id = interface_id, .hostname = "web", .queues = 3};
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_interface interface;
	json_t *expected = json_pack("{s:s, s:s, s:s, s:i}", "network", "shared", "interfaceId",
		"6D6B1F5C-0000-0000-0000-000000000000", "hostname", "web", "queues", 3);

	assert_int_equal(vmnet_broker_create_interface(handle, "shared", &options, &interface),
		VMNET_BROKER_SUCCESS);
	assert_true(json_equal(broker.last_create, expected));
	json_decref(expected);
	fd_close(interface.queues[0]);
	fd_close(interface.queues[1]);
	assert_int_equal(interface.vhosts_count, 0);
	assert_int_equal(vmnet_broker_create_interface(handle, "shared", NULL, &interface),
		VMNET_BROKER_SUCCESS);
	assert_int_equal(json_object_size(broker.last_create), 1);
	fd_close(interface.queues[0]);
	fd_close(interface.queues[1]);
	vmnet_broker_close(handle);
}

static void vhost_fds_arrive_when_asked_for(void **state)
{
	const struct vmnet_broker_interface_options options = {.queues = 2, .vhost = true};
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_interface interface;
	struct stat found, random;

	assert_int_equal(vmnet_broker_create_interface(handle, "shared", &options, &interface),
		VMNET_BROKER_SUCCESS);
	assert_int_equal(interface.queues_count, 2);
	assert_int_equal(interface.vhosts_count, 2);
	assert_int_equal(stat("/dev/urandom", &random), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(fcntl(interface.vhosts[i], F_GETFD), FD_CLOEXEC);
		assert_int_equal(fstat(interface.vhosts[i], &found), 0);
		assert_int_equal(found.st_rdev, random.st_rdev);
		fd_close(interface.queues[i]);
		fd_close(interface.vhosts[i]);
	}
	vmnet_broker_close(handle);
}

/* One that a malicious broker could have closed under another's feet. */
static void an_fd_named_twice_is_no_answer(void **state)
{
	const struct vmnet_broker_interface_options options = {.queues = 2, .vhost = true};
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_interface interface = {.queues_count = 77};

	broker.names_fds_twice = true;
	assert_int_equal(vmnet_broker_create_interface(handle, "shared", &options, &interface),
		VMNET_BROKER_INVALID_REPLY);
	assert_int_equal(interface.queues_count, 77);
	broker.names_fds_twice = false;
	vmnet_broker_close(handle);
}

static void buffers_are_enlarged(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	int sockets[3] = {0, 1, 2};
	uint32_t bytes = 0;

	assert_int_equal(vmnet_broker_enlarge_socket_buffers(handle, sockets, 2, &bytes),
		VMNET_BROKER_SUCCESS);
	assert_int_equal(bytes, 12345);
	assert_int_equal(vmnet_broker_enlarge_socket_buffers(handle, sockets, 0, &bytes),
		VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(vmnet_broker_enlarge_socket_buffers(handle, sockets, 3, &bytes),
		VMNET_BROKER_INVALID_REQUEST);
	assert_non_null(strstr(vmnet_broker_reason(handle), "3 sockets"));
	vmnet_broker_close(handle);
}

static void any_method_can_be_called(void **state)
{
	char long_name[200] = "ListNetworks";
	vmnet_broker_t *handle = fake_broker_connect();
	char *reply = NULL;
	json_t *value;

	memset(long_name, 'x', sizeof(long_name) - 1);
	assert_int_equal(
		vmnet_broker_call(handle, "AcquireNetwork", "{\"network\": \"host\"}", &reply),
		VMNET_BROKER_SUCCESS);
	assert_int_equal(broker.acquired[1], 1);
	value = json_loads(reply, 0, NULL);
	free(reply);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(value, "network"), "name")),
		"host");
	json_decref(value);
	assert_int_equal(vmnet_broker_call(handle, "Other", NULL, NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(
		vmnet_broker_call(handle, "Other", "[1]", &reply), VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(
		vmnet_broker_call(handle, "Other", "{", &reply), VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(
		vmnet_broker_call(handle, long_name, NULL, &reply), VMNET_BROKER_INVALID_REQUEST);
	vmnet_broker_close(handle);
}

static void a_call_may_have_many_answers(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	bool more = true;

	assert_int_equal(
		vmnet_broker_call_for_more(handle, "Count", "[]"), VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(vmnet_broker_call_for_more(handle, "Count", NULL), VMNET_BROKER_SUCCESS);
	for (int i = 1; more; i++) {
		char expected[32];
		char *reply = NULL;

		snprintf(expected, sizeof(expected), "{\"number\":%d}", i);
		assert_int_equal(
			vmnet_broker_next_reply(handle, &reply, &more), VMNET_BROKER_SUCCESS);
		assert_string_equal(reply, expected);
		assert_int_equal(more, i < 3);
		free(reply);
	}
	assert_int_equal(vmnet_broker_call(handle, "Other", NULL, NULL), VMNET_BROKER_SUCCESS);
	broker.refusal = "org.vmnet.Broker.NotFound";
	broker.manner = MANNER_REFUSE;
	assert_int_equal(vmnet_broker_call_for_more(handle, "Count", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(vmnet_broker_next_reply(handle, NULL, NULL), VMNET_BROKER_NOT_FOUND);
	broker.manner = MANNER_HANG_UP;
	assert_int_equal(vmnet_broker_call_for_more(handle, "Count", NULL), VMNET_BROKER_SUCCESS);
	assert_int_equal(
		vmnet_broker_next_reply(handle, NULL, NULL), VMNET_BROKER_CONNECTION_FAILURE);
	assert_int_equal(
		vmnet_broker_next_reply(handle, NULL, NULL), VMNET_BROKER_CONNECTION_FAILURE);
	vmnet_broker_close(handle);
}

static void a_call_may_bring_fds(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	int fds[4] = {-1, -1, -1, -1};
	size_t count = array_length(fds);
	char *reply = NULL;

	assert_int_equal(
		vmnet_broker_call_with_fds(handle, "CreateInterface", "{}", &reply, fds, &count),
		VMNET_BROKER_SUCCESS);
	assert_int_equal(count, 2);
	assert_non_null(strstr(reply, "vmtap00000001"));
	free(reply);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		fd_close(fds[i]);
	}
	count = 1;
	assert_int_equal(
		vmnet_broker_call_with_fds(handle, "CreateInterface", "{}", NULL, fds, &count),
		VMNET_BROKER_SUCCESS);
	assert_int_equal(count, 1);
	fd_close(fds[0]);
	vmnet_broker_close(handle);
}

static void errors_have_their_numbers_and_the_brokers_words(void **state)
{
	static const struct {
		const char *error;
		vmnet_broker_status_t status;
	} cases[] = {
		{"org.vmnet.Broker.NotFound", 5},
		{"org.vmnet.Broker.NotAllowed", 3},
		{"org.vmnet.Broker.InvalidRequest", 4},
		{"org.vmnet.Broker.CreateFailure", 6},
		{"org.vmnet.Broker.InternalError", 7},
		{"org.vmnet.Broker.QuotaExceeded", 7},
		{"org.vmnet.Broker.Conflict", 6},
	};
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_network network = {.mtu = 77};

	for (size_t i = 0; i < array_length(cases); i++) {
		broker.refusal = cases[i].error;
		broker.manner = MANNER_REFUSE;
		assert_int_equal(vmnet_broker_acquire(handle, "shared", &network), cases[i].status);
		assert_string_equal(vmnet_broker_reason(handle), "because");
		assert_int_equal(network.mtu, 77);
	}
	broker.refusal = "org.varlink.service.MethodNotFound";
	assert_int_equal(
		vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_INVALID_REQUEST);
	broker.refusal = "org.example.Other";
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_INTERNAL_ERROR);
	assert_non_null(strstr(vmnet_broker_reason(handle), "org.example.Other"));
	broker.manner = MANNER_ANSWER;
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	assert_string_equal(vmnet_broker_reason(handle), "");
	assert_int_equal(broker.peers_accepted, 1);
	vmnet_broker_close(handle);
}

static void wrong_answers_are_invalid_replies(void **state)
{
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_interface interface;
	int socket = 0;

	broker.manner = MANNER_NONSENSE;
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_INVALID_REPLY);
	assert_int_equal(vmnet_broker_create_interface(handle, "shared", NULL, &interface),
		VMNET_BROKER_INVALID_REPLY);
	assert_int_equal(vmnet_broker_enlarge_socket_buffers(handle, &socket, 1, NULL),
		VMNET_BROKER_INVALID_REPLY);
	broker.manner = MANNER_GARBAGE;
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_INVALID_REPLY);
	assert_non_null(strstr(vmnet_broker_reason(handle), broker_path));
	broker.manner = MANNER_ANSWER;
	assert_int_equal(vmnet_broker_acquire(handle, "shared", NULL), VMNET_BROKER_SUCCESS);
	vmnet_broker_close(handle);
}

static void what_cannot_be_sent_is_an_invalid_request(void **state)
{
	static const char longest[] =
		"a2345678901234567890123456789012345678901234567890123456789012345";
	struct vmnet_broker_interface_options options = {.hostname = longest};
	vmnet_broker_t *handle = fake_broker_connect();
	struct vmnet_broker_interface interface;

	assert_int_equal(
		vmnet_broker_acquire(handle, "no name", NULL), VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(vmnet_broker_acquire(handle, NULL, NULL), VMNET_BROKER_INVALID_REQUEST);
	assert_int_equal(vmnet_broker_create_interface(handle, "shared", &options, &interface),
		VMNET_BROKER_INVALID_REQUEST);
	options = (struct vmnet_broker_interface_options){.sockets_count = 3};
	assert_int_equal(vmnet_broker_create_interface(handle, "shared", &options, &interface),
		VMNET_BROKER_INVALID_REQUEST);
	/* Of another number of queues the broker knows better what to say. */
	assert_int_equal(broker.acquired[0], 0);
	assert_null(broker.last_create);
	vmnet_broker_close(handle);
}

/* --- connections --- */

static void deadlines_end_every_wait(void **state)
{
	struct connection *connection;
	struct fd_list fds;
	json_t *message;

	broker.manner = MANNER_SILENT;
	assert_int_equal(connection_open(broker_path, deadline_after(DEADLINE_MS), &connection), 0);
	assert_int_equal(connection_receive(connection, CONNECTION_NO_WAIT, &message, &fds), 0);
	assert_int_equal(
		connection_receive(connection, deadline_after(20), &message, &fds), -ETIMEDOUT);
	connection_close(connection);
	connection_close(NULL);
}

static void a_full_listener_is_waited_for_until_the_deadline(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct connection *connections[4];
	char crowded[sizeof(broker_path) + 1];
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), result;
	size_t count = 0;

	snprintf(crowded, sizeof(crowded), "%s2", broker_path);
	strcpy(address.sun_path, crowded);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 0), 0);
	do {
		assert_true(count < array_length(connections));
		result = connection_open(crowded, CONNECTION_NO_WAIT, &connections[count]);
	} while (result == 0 && ++count);
	assert_int_equal(result, -EAGAIN);
	assert_int_equal(
		connection_open(crowded, deadline_after(20), &connections[count]), -EAGAIN);
	while (count > 0)
		connection_close(connections[--count]);
	fd_close(listener);
	unlink(crowded);
}

static void every_path_that_was_tried_is_named(void **state)
{
	char reason[512], expected[512], long_path[200];
	vmnet_broker_status_t status;

	assert_null(vmnet_broker_connect("/nonexistent/socket", &status, reason, sizeof(reason)));
	assert_int_equal(status, VMNET_BROKER_CONNECTION_FAILURE);
	assert_string_equal(reason, "/nonexistent/socket: No such file or directory");
	assert_null(vmnet_broker_connect("/nonexistent/socket", NULL, NULL, 0));
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_null(vmnet_broker_connect(long_path, &status, reason, sizeof(reason)));
	assert_non_null(strstr(reason, "File name too long"));
	setenv("VMNET_BROKER_SOCKET", "/nonexistent/named", 1);
	setenv("XDG_RUNTIME_DIR", broker_directory, 1);
	assert_null(vmnet_broker_connect(NULL, &status, reason, sizeof(reason)));
	assert_string_equal(reason, "/nonexistent/named: No such file or directory");
	unsetenv("VMNET_BROKER_SOCKET");
	/* A machine may have a broker of its own, which is not to be talked to here. */
	if (access("/run/vmnet-broker/socket", F_OK) < 0) {
		assert_null(vmnet_broker_connect(NULL, &status, reason, sizeof(reason)));
		snprintf(expected, sizeof(expected),
			"/run/vmnet-broker/socket: No such file or directory; "
			"%s/vmnet-broker/socket: No such file or directory",
			broker_directory);
		assert_string_equal(reason, expected);
	}
}

/* Runs check in a child without root's rights over files. */
static int run_unprivileged(int (*check_in_child)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(99);
		_exit(check_in_child());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int connect_to_forbidden(void)
{
	vmnet_broker_status_t status;
	char reason[256];

	if (vmnet_broker_connect(broker_path, &status, reason, sizeof(reason)))
		return 1;
	return status == VMNET_BROKER_NOT_ALLOWED && strstr(reason, "Permission denied") ? 0 : 2;
}

static void a_forbidden_socket_is_not_allowed(void **state)
{
	assert_int_equal(chmod(broker_path, 0), 0);
	assert_int_equal(run_unprivileged(connect_to_forbidden), 0);
}

static void every_status_has_its_text(void **state)
{
	for (int i = 0; i <= 7; i++) {
		const char *text = vmnet_broker_strerror((vmnet_broker_status_t)i);

		assert_true(strlen(text) > 0);
		assert_string_not_equal(text, "(unknown status)");
		for (int j = 0; j < i; j++)
			assert_string_not_equal(
				text, vmnet_broker_strerror((vmnet_broker_status_t)j));
	}
	assert_string_equal(vmnet_broker_strerror((vmnet_broker_status_t)8), "(unknown status)");
	assert_string_equal(vmnet_broker_strerror((vmnet_broker_status_t)999), "(unknown status)");
	assert_string_equal(vmnet_broker_strerror((vmnet_broker_status_t)-1), "(unknown status)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		broker_test(a_network_is_acquired),
		broker_test(an_interface_arrives_with_its_queues),
		broker_test(vhost_fds_arrive_when_asked_for),
		broker_test(an_fd_named_twice_is_no_answer),
		broker_test(options_are_sent_as_given),
		broker_test(buffers_are_enlarged),
		broker_test(any_method_can_be_called),
		broker_test(a_call_may_have_many_answers),
		broker_test(a_call_may_bring_fds),
		broker_test(errors_have_their_numbers_and_the_brokers_words),
		broker_test(wrong_answers_are_invalid_replies),
		broker_test(what_cannot_be_sent_is_an_invalid_request),
		broker_test(deadlines_end_every_wait),
		broker_test(a_full_listener_is_waited_for_until_the_deadline),
		broker_test(every_path_that_was_tried_is_named),
		broker_test(a_forbidden_socket_is_not_allowed),
		cmocka_unit_test(every_status_has_its_text),
	};
	int failures;

	if (fake_broker_make_directory() < 0)
		return 1;
	failures = cmocka_run_group_tests(tests, NULL, NULL);
	fake_broker_remove_directory();
	return failures;
}
