#include "client/connection.h"

#include "base/cleanup.h"
#include "base/text.h"
#include "wire/varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

struct connection {
	int socket;
	struct varlink_input *input;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t deadline_after(uint32_t timeout_ms)
{
	return now_ms() + timeout_ms;
}

bool deadline_has_passed(int64_t deadline)
{
	return now_ms() >= deadline;
}

/* Milliseconds left, for poll(2); 0 when there are none. */
static int remaining_ms(int64_t deadline)
{
	int64_t remaining = deadline - now_ms();

	if (remaining <= 0)
		return 0;
	return remaining > INT_MAX ? INT_MAX : (int)remaining;
}

/* SO_SNDTIMEO bounds how long connect(2) waits for room in the listener's queue, unix(7) sockets
 * included. */
static int connect_socket(int fd, const struct sockaddr_un *address, int64_t deadline)
{
	int wait_ms = remaining_ms(deadline);
	struct timeval timeout = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
	int flags = fcntl(fd, F_GETFL);

	if (wait_ms > 0 &&
		(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
			fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0))
		return -errno;
	while (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		if (errno != EINTR)
			return -errno;
	return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int connection_open(const char *path, int64_t deadline, struct connection **ret_connection)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct connection *connection;
	cleanup_fd int fd = -1;
	int error;

	if (text_copy(address.sun_path, sizeof(address.sun_path), path) < 0)
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	error = connect_socket(fd, &address, deadline);
	if (error)
		return error;
	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return -ENOMEM;
	error = varlink_input_new(&connection->input);
	if (error) {
		free(connection);
		return error;
	}
	connection->socket = take_fd(&fd);
	*ret_connection = connection;
	return 0;
}

bool connection_is_with_own_user(const struct connection *connection)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(connection->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       peer.uid == geteuid();
}

void connection_close(struct connection *connection)
{
	if (!connection)
		return;
	fd_close(connection->socket);
	varlink_input_free(connection->input);
	free(connection);
}

int connection_get_fd(const struct connection *connection)
{
	return connection->socket;
}

static int wait_for(struct connection *connection, short events, int64_t deadline)
{
	struct pollfd waiter = {.fd = connection->socket, .events = events};

	for (;;) {
		int ready = poll(&waiter, 1, remaining_ms(deadline));

		if (ready > 0)
			return 0;
		if (ready == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

int connection_send(struct connection *connection, json_t *message, const int *fds,
	size_t fds_count, int64_t deadline)
{
	cleanup_free char *bytes = NULL;
	size_t size, sent = 0;
	int error = varlink_encode(message, &bytes, &size);

	while (!error && sent < size) {
		/* The fds go with the first byte, so only with the first piece. */
		ssize_t taken = fd_send(connection->socket, bytes + sent, size - sent, fds,
			sent == 0 ? fds_count : 0);

		if (taken >= 0)
			sent += (size_t)taken;
		else if (taken == -EAGAIN)
			error = wait_for(connection, POLLOUT, deadline);
		else
			error = (int)taken;
	}
	return error;
}

/* Returns 1 when bytes came, 0 when there are none, or negative errno. */
static int receive_bytes(struct connection *connection)
{
	struct fd_list fds;
	char buffer[4096];
	ssize_t size;
	int error;

	size = fd_receive(connection->socket, buffer, sizeof(buffer), &fds);
	if (size == -EAGAIN)
		return 0;
	if (size < 0)
		return (int)size;
	if (size == 0)
		return -ECONNRESET;
	error = varlink_input_feed(connection->input, buffer, (size_t)size, &fds);
	return error ? error : 1;
}

int connection_receive(struct connection *connection, int64_t deadline, json_t **ret_message,
	struct fd_list *ret_fds)
{
	for (;;) {
		int result = varlink_input_next(connection->input, ret_message, ret_fds);

		if (result != 0)
			return result;
		result = receive_bytes(connection);
		if (result == 0 && deadline == CONNECTION_NO_WAIT)
			return 0;
		if (result == 0)
			result = wait_for(connection, POLLIN, deadline);
		if (result < 0)
			return result;
	}
}
