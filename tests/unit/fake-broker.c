/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "fake-broker.h"

#include "base/cleanup.h"
#include "wire/messages.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

struct fake_broker broker;
char broker_directory[] = "/tmp/fake-broker-XXXXXX";
char broker_path[64];

int fake_broker_make_directory(void)
{
	if (!mkdtemp(broker_directory) || chmod(broker_directory, 0755) < 0)
		return -1;
	snprintf(broker_path, sizeof(broker_path), "%s/socket", broker_directory);
	return 0;
}

void fake_broker_remove_directory(void)
{
	rmdir(broker_directory);
}

static struct broker_network make_network(const char *name)
{
	struct broker_network network = {.mtu = 1500, .running = true};

	text_copy(network.name, sizeof(network.name), name);
	text_copy(network.mode, sizeof(network.mode), "shared");
	text_copy(network.bridge, sizeof(network.bridge), "vmbr01234567");
	text_copy(network.domain, sizeof(network.domain), "shared.vmnet");
	text_to_ipv4_subnet("192.168.64.0/24", &network.subnet);
	text_to_ipv4("192.168.64.1", &network.gateway);
	return network;
}

static void send_message(int socket, json_t *message, const int *fds, size_t fds_count)
{
	char *bytes;
	size_t size;

	assert_int_equal(varlink_encode(message, &bytes, &size), 0);
	assert_int_equal(fd_send(socket, bytes, size, fds, fds_count), size);
	free(bytes);
	json_decref(message);
}

static void answer_create(int socket, json_t *parameters)
{
	struct created_interface created = {
		.network = make_network("shared"),
		.interface_name = "vmtap00000001",
		.mac = {{2, 0, 0, 0, 0, 1}},
		.queues_count = 2,
		/* The other way round, so that the order has to be read. */
		.queues = {1, 0},
		.socket_buffer_bytes = 4711,
	};
	int fds[] = {open("/dev/null", O_RDWR | O_CLOEXEC), open("/dev/zero", O_RDWR | O_CLOEXEC),
		open("/dev/urandom", O_RDWR | O_CLOEXEC), open("/dev/urandom", O_RDWR | O_CLOEXEC)};

	if (json_is_true(json_object_get(parameters, "vhost"))) {
		created.vhosts_count = 2;
		created.vhosts[0] = 2;
		created.vhosts[1] = broker.names_fds_twice ? 1 : 3;
	}
	text_to_ipv4("192.168.64.2", &created.address);
	json_decref(broker.last_create);
	broker.last_create = json_incref(parameters);
	send_message(socket, varlink_make_reply(created_interface_encode(&created)), fds,
		created.queues_count + created.vhosts_count);
	for (size_t i = 0; i < array_length(fds); i++)
		fd_close(fds[i]);
}

/* Numbers from 1 on; the last one says that it is. */
static void answer_more(int socket)
{
	for (int i = 1; i <= 3; i++) {
		json_t *reply = varlink_make_reply(json_pack("{s:i}", "number", i));

		if (i < 3)
			json_object_set_new(reply, "continues", json_true());
		send_message(socket, reply, NULL, 0);
	}
}

static void answer_call(int socket, const struct varlink_call *call)
{
	const char *name = json_string_value(json_object_get(call->parameters, "network"));
	struct broker_network network = make_network(name ? name : "none");

	if (strcmp(call->method, "org.vmnet.Broker.CreateInterface") == 0) {
		answer_create(socket, call->parameters);
	} else if (call->more) {
		answer_more(socket);
	} else if (strcmp(call->method, "org.vmnet.Broker.EnlargeSocketBuffers") == 0) {
		send_message(
			socket, varlink_make_reply(enlarged_socket_buffers_encode(12345)), NULL, 0);
	} else {
		broker.acquired[strcmp(network.name, "host") == 0]++;
		send_message(
			socket, varlink_make_reply(acquired_network_encode(&network)), NULL, 0);
	}
}

/* Returns false when the peer is to be hung up on. */
static bool handle_call(int socket, const struct varlink_call *call)
{
	switch (atomic_load(&broker.manner)) {
	case MANNER_HANG_ONCE:
		broker.manner = MANNER_ANSWER;
		return false;
	case MANNER_HANG_UP:
		return false;
	case MANNER_GARBAGE:
		return write(socket, "hello", 6) == 6;
	case MANNER_NONSENSE:
		send_message(socket, varlink_make_reply(NULL), NULL, 0);
		return true;
	case MANNER_REFUSE:
		send_message(socket,
			varlink_make_error(broker.refusal, json_pack("{s:s}", "reason", "because")),
			NULL, 0);
		return true;
	case MANNER_ANSWER:
		answer_call(socket, call);
		return true;
	default:
		return true;
	}
}

static bool serve_peer(struct peer *peer)
{
	struct fd_list fds;
	char buffer[4096];
	ssize_t size = fd_receive(peer->socket, buffer, sizeof(buffer), &fds);
	json_t *message;

	if (size <= 0 || varlink_input_feed(peer->input, buffer, (size_t)size, &fds) < 0)
		return false;
	while (varlink_input_next(peer->input, &message, &fds) == 1) {
		struct varlink_call call;
		bool goes_on = varlink_call_decode(message, &call) == 0 &&
			       handle_call(peer->socket, &call);

		broker.sockets_received += (int)fds.count;
		fd_list_done(&fds);
		json_decref(message);
		if (!goes_on)
			return false;
	}
	return true;
}

static void close_peer(struct peer *peer)
{
	fd_close(take_fd(&peer->socket));
	varlink_input_free(take_ptr(peer->input));
}

static void accept_peer(void)
{
	for (size_t i = 0; i < PEERS_MAX; i++) {
		if (broker.peers[i].socket >= 0)
			continue;
		assert_int_equal(varlink_input_new(&broker.peers[i].input), 0);
		broker.peers[i].socket = accept4(broker.listener, NULL, NULL, SOCK_CLOEXEC);
		broker.peers_accepted++;
		return;
	}
}

static void *run_broker(void *unused)
{
	for (;;) {
		struct pollfd waiters[2 + PEERS_MAX] = {
			{.fd = broker.stopper, .events = POLLIN},
			{.fd = broker.listener, .events = POLLIN},
		};

		for (size_t i = 0; i < PEERS_MAX; i++)
			waiters[2 + i] =
				(struct pollfd){.fd = broker.peers[i].socket, .events = POLLIN};
		poll(waiters, array_length(waiters), -1);
		if (waiters[0].revents)
			return NULL;
		for (size_t i = 0; i < PEERS_MAX; i++)
			if (waiters[2 + i].revents && !serve_peer(&broker.peers[i]))
				close_peer(&broker.peers[i]);
		if (waiters[1].revents)
			accept_peer();
	}
}

void fake_broker_start(enum manner manner)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	broker = (struct fake_broker){.manner = manner};
	for (size_t i = 0; i < PEERS_MAX; i++)
		broker.peers[i].socket = -1;
	strcpy(address.sun_path, broker_path);
	broker.stopper = eventfd(0, EFD_CLOEXEC);
	broker.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(broker_path);
	assert_int_equal(bind(broker.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(broker.listener, 16), 0);
	assert_int_equal(pthread_create(&broker.thread, NULL, run_broker, NULL), 0);
}

void fake_broker_stop(void)
{
	assert_int_equal(eventfd_write(broker.stopper, 1), 0);
	pthread_join(broker.thread, NULL);
	for (size_t i = 0; i < PEERS_MAX; i++)
		if (broker.peers[i].socket >= 0)
			close_peer(&broker.peers[i]);
	fd_close(broker.listener);
	fd_close(broker.stopper);
	json_decref(take_ptr(broker.last_create));
	unlink(broker_path);
}

int fake_broker_set_up(void **state)
{
	fake_broker_start(MANNER_ANSWER);
	return 0;
}

int fake_broker_tear_down(void **state)
{
	fake_broker_stop();
	return 0;
}

vmnet_broker_t *fake_broker_connect(void)
{
	vmnet_broker_status_t status = VMNET_BROKER_INTERNAL_ERROR;
	char reason[64] = "before";
	vmnet_broker_t *handle = vmnet_broker_connect(broker_path, &status, reason, sizeof(reason));

	assert_non_null(handle);
	assert_int_equal(status, VMNET_BROKER_SUCCESS);
	assert_string_equal(reason, "");
	return handle;
}
