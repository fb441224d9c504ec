#include "priv/namespace-lock.h"

#include "base/cleanup.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* "vmn" in the loopback network, and a port that is assigned to nothing (IANA service names). */
#define LOCK_ADDRESS 0x7f766d6eU /* 127.118.109.110 */
#define LOCK_PORT    4

int namespace_lock_take(void)
{
	const struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(LOCK_PORT),
		.sin_addr.s_addr = htonl(LOCK_ADDRESS),
	};
	cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int enabled = 1;

	if (fd < 0)
		return -errno;
	/* In a namespace whose lo is down the address is nobody's yet. */
	if (setsockopt(fd, SOL_IP, IP_FREEBIND, &enabled, sizeof(enabled)) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return take_fd(&fd);
}
