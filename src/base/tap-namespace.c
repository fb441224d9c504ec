#include "base/tap-namespace.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

int tap_namespace_open(int tap, int *ret_fd)
{
	cleanup_fd int fd = ioctl(tap, SIOCGSKNS);
	struct stat found, own;

	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fstat(fd, &found) < 0 ||
		stat("/proc/self/ns/net", &own) < 0)
		return -errno;
	if (found.st_dev == own.st_dev && found.st_ino == own.st_ino)
		return -ENOENT;
	*ret_fd = take_fd(&fd);
	return 0;
}
