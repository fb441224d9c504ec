#include "priv/sysctl.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

const char *sysctl_root(void)
{
	return "/proc/sys/net";
}

int sysctl_set_interface(
	const char *family, const char *interface_name, const char *key, char value)
{
	cleanup_fd int fd = -1;
	char path[PATH_MAX];
	char current;

	snprintf(
		path, sizeof(path), "%s/%s/conf/%s/%s", sysctl_root(), family, interface_name, key);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, &current, 1, 0) == 1 && current == value)
		return 0;
	if (pwrite(fd, &value, 1, 0) != 1)
		return errno ? -errno : -EIO;
	return 0;
}

bool sysctl_has_ipv6(void)
{
	cleanup_fd int fd = open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_RDONLY | O_CLOEXEC);
	char disabled;

	return fd >= 0 && pread(fd, &disabled, 1, 0) == 1 && disabled == '0';
}

int sysctl_disable_ipv6(const char *interface_name)
{
	int error = sysctl_set_interface("ipv6", interface_name, "disable_ipv6", '1');

	return error == -ENOENT ? 0 : error;
}
