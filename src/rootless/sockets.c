#include "rootless/sockets.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

int sockets_make_address(const char *directory, const char *name, struct sockaddr_un *ret_address)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);

	if ((size_t)length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	*ret_address = address;
	return 0;
}

int sockets_listen(const char *directory, const char *name, int *ret_fd)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	int error;

	if (fd < 0)
		return -errno;
	error = sockets_make_address(directory, name, &address);
	if (error)
		return error;
	unlink(address.sun_path);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
		chmod(address.sun_path, 0600) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

int sockets_connect(const char *directory, const char *name, int *ret_fd)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	int error;

	if (fd < 0)
		return -errno;
	error = sockets_make_address(directory, name, &address);
	if (error)
		return error;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

void sockets_close(const char *directory, const char *name, int fd)
{
	struct sockaddr_un address;

	if (fd >= 0 && sockets_make_address(directory, name, &address) == 0)
		unlink(address.sun_path);
	fd_close(fd);
}
