#include "base/cleanup.h"

#include <errno.h>

void fd_close(int fd)
{
	int kept = errno;

	if (fd >= 0)
		close(fd);
	errno = kept;
}
