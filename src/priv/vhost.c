#include "priv/vhost.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define DEVICE "/dev/vhost-net"

static int open_device(int *ret_fd)
{
	cleanup_fd int fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISCHR(status.st_mode))
		return -ENODEV;
	*ret_fd = take_fd(&fd);
	return 0;
}

int vhost_open(uint32_t count, struct verb_outcome *outcome)
{
	int error = 0;

	for (uint32_t i = 0; i < count && !error; i++) {
		int fd = -1;

		error = open_device(&fd);
		if (!error)
			error = outcome_add_fd(outcome, fd);
	}
	if (!error)
		return 0;
	fd_list_done(&outcome->fds);
	return outcome_fail(outcome, error, "opening " DEVICE ": %s", strerror(-error));
}
