#include "broker/helper-counters.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define NAME_SIZE 32

static void make_name(uint32_t number, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, "%08x" HELPER_COUNTERS_SUFFIX, number);
}

/* The directory's own path may be longer than an address has room for. */
static struct sockaddr_un make_address(int directory, uint32_t number)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char name[NAME_SIZE];

	make_name(number, name);
	snprintf(
		address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory, name);
	return address;
}

static int open_socket(int *ret_fd)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int helper_counters_bind(int directory, uint32_t number, int *ret_fd)
{
	struct sockaddr_un address = make_address(directory, number);
	cleanup_fd int fd = -1;
	int error = helper_counters_remove(directory, number);

	if (!error)
		error = open_socket(&fd);
	if (error)
		return error;
	/* The name's mode is the fd's, but for the umask's bits. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

int helper_counters_connect(int directory, uint32_t number, int *ret_fd)
{
	struct sockaddr_un address = make_address(directory, number);
	cleanup_fd int fd = -1;
	int error = open_socket(&fd);

	if (error)
		return error;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

int helper_counters_remove(int directory, uint32_t number)
{
	char name[NAME_SIZE];

	make_name(number, name);
	return unlinkat(directory, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}
