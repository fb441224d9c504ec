#include "helper/socket-server.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == SOCKET_SERVER_PATH_MAX + 1,
	"the longest path and its NUL fill sun_path");

#define FILE_MODE 0600
/* The size of a VM's queue; the system may allow less, which is used then. */
#define SEND_BUFFER (4 << 20)

static const char client_magic[4] = {'V', 'F', 'K', 'T'};

void socket_server_init(struct socket_server *server)
{
	*server = (struct socket_server){.socket = -1, .lock = -1};
}

static bool is_same_file(const struct owned_file *file, const struct stat *status)
{
	return status->st_dev == file->device && status->st_ino == file->inode;
}

static int own_file(struct owned_file *file, const char *path, const struct stat *status)
{
	int error = text_copy(file->path, sizeof(file->path), path);

	if (error)
		return error;
	file->device = status->st_dev;
	file->inode = status->st_ino;
	return 0;
}

static void remove_file(struct owned_file *file)
{
	struct stat status;

	if (*file->path && lstat(file->path, &status) == 0 && is_same_file(file, &status))
		unlink(file->path);
	*file->path = '\0';
}

/*
 * Returns 1 with the lock held, 0 when the file we locked is no longer the one at the path: its
 * holder removed it at its end, between our open() and our flock().
 */
static int try_lock(struct socket_server *server, const char *path)
{
	cleanup_fd int lock =
		open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, FILE_MODE);
	struct stat held, named;
	int error;

	if (lock < 0)
		return -errno;
	if (flock(lock, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	if (fstat(lock, &held) < 0)
		return -errno;
	if (lstat(path, &named) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (held.st_dev != named.st_dev || held.st_ino != named.st_ino)
		return 0;
	error = own_file(&server->lock_file, path, &held);
	if (error)
		return error;
	server->lock = take_fd(&lock);
	return 1;
}

static int lock_path(struct socket_server *server, const char *path, char *reason)
{
	char lock_path[SOCKET_SERVER_PATH_MAX + sizeof(".lock")];
	int result;

	snprintf(lock_path, sizeof(lock_path), "%.107s.lock", path);
	do {
		result = try_lock(server, lock_path);
	} while (result == 0);
	if (result == -EWOULDBLOCK)
		snprintf(reason, SOCKET_SERVER_REASON_SIZE,
			"another vmnet-helper uses socket %s; choose another path, or end that one",
			path);
	else if (result < 0)
		snprintf(reason, SOCKET_SERVER_REASON_SIZE, "cannot lock %s: %s", lock_path,
			strerror(-result));
	return result < 0 ? result : 0;
}

/* A socket without a process refuses connections; anything else at the path is somebody's. */
static int remove_stale_socket(int socket, const struct sockaddr_un *address)
{
	struct stat status;

	if (lstat(address->sun_path, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(status.st_mode))
		return -EADDRINUSE;
	if (connect(socket, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return errno == ENOENT ? 0 : -EADDRINUSE;
	return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

/* The mode is set before the bind, so that the file never has another (Linux only). */
static int bind_path(struct socket_server *server, const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size;
	struct stat status;
	int error = text_copy(address.sun_path, sizeof(address.sun_path), path);

	if (error)
		return error;
	size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
	server->socket = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->socket < 0)
		return -errno;
	error = remove_stale_socket(server->socket, &address);
	if (error)
		return error;
	if (fchmod(server->socket, FILE_MODE) < 0)
		return -errno;
	if (bind(server->socket, (struct sockaddr *)&address, size) < 0)
		return -errno;
	if (lstat(path, &status) < 0)
		return -errno;
	error = own_file(&server->socket_file, path, &status);
	if (error || type != SOCK_STREAM)
		return error;
	return listen(server->socket, 1) < 0 ? -errno : 0;
}

int socket_server_open(struct socket_server *server, const char *path, int type, char *reason)
{
	int error = lock_path(server, path, reason);

	if (error)
		return error;
	error = bind_path(server, path, type);
	if (error == -EADDRINUSE)
		snprintf(reason, SOCKET_SERVER_REASON_SIZE,
			"%s exists and is no dead helper's socket; choose another path", path);
	else if (error)
		snprintf(reason, SOCKET_SERVER_REASON_SIZE, "cannot bind socket %s: %s", path,
			strerror(-error));
	return error;
}

void socket_server_close(struct socket_server *server)
{
	remove_file(&server->socket_file);
	remove_file(&server->lock_file);
	fd_close(take_fd(&server->socket));
	fd_close(take_fd(&server->lock));
}

static void drop_message(int socket)
{
	char byte;

	recv(socket, &byte, sizeof(byte), MSG_DONTWAIT);
}

static bool has_address(socklen_t size)
{
	return size > sizeof(sa_family_t);
}

static int connect_back(int socket, const struct sockaddr_un *client, socklen_t size, char *reason)
{
	if (!has_address(size)) {
		snprintf(reason, SOCKET_SERVER_REASON_SIZE,
			"passed over a client without an address; it has to bind its socket first");
		return -EDESTADDRREQ;
	}
	if (connect(socket, (const struct sockaddr *)client, size) < 0) {
		int error = errno;

		snprintf(reason, SOCKET_SERVER_REASON_SIZE,
			"passed over a client that cannot be connected to: %s", strerror(error));
		return -error;
	}
	return 0;
}

int socket_server_meet_client(
	struct socket_server *server, struct direction_counters *counters, char *reason)
{
	char start[sizeof(client_magic)];
	struct sockaddr_un client;
	socklen_t size = sizeof(client);
	ssize_t length = recvfrom(server->socket, start, sizeof(start),
		MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT, (struct sockaddr *)&client, &size);

	*reason = '\0';
	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (connect_back(server->socket, &client, size, reason) < 0) {
		drop_message(server->socket);
		counter_add(&counters->drops, 1);
		return 0;
	}
	if (length == sizeof(client_magic) && memcmp(start, client_magic, sizeof(start)) == 0)
		drop_message(server->socket);
	return 1;
}

int socket_server_accept(struct socket_server *server, int *ret_socket)
{
	const int wanted = SEND_BUFFER;
	int client = accept4(server->socket, NULL, NULL, SOCK_CLOEXEC);

	if (client < 0)
		return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED ? 0 : -errno;
	setsockopt(client, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted));
	fd_close(take_fd(&server->socket));
	*ret_socket = client;
	return 1;
}
