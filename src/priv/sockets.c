#include "priv/sockets.h"

#include "base/cleanup.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

/*
 * A change of ours tells of every rule twice, removed and added. With the 208 KiB that a socket has
 * otherwise, 60 networks overflowed it each time, and the listener, who can't know what it missed,
 * made the rules again for ever. Memory is used only while messages wait.
 */
#define NFT_EVENTS_BUFFER (16 << 20)

static bool is_unix_socket(int fd)
{
	int domain;
	socklen_t size = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* The kernel stores twice what it is given, and tells what it stored. */
static int force_buffer(int fd, int option, int force_option, uint32_t bytes)
{
	int current;
	int wanted = (int)bytes;
	socklen_t size = sizeof(current);

	if (getsockopt(fd, SOL_SOCKET, option, &current, &size) < 0)
		return -errno;
	if (current / 2 >= wanted)
		return 0;
	return setsockopt(fd, SOL_SOCKET, force_option, &wanted, sizeof(wanted)) < 0 ? -errno : 0;
}

static int force_buffers(int fd, uint32_t bytes, uint32_t *ret_bytes)
{
	int current;
	socklen_t size = sizeof(current);
	int error;

	error = force_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, bytes);
	if (!error)
		error = force_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, bytes);
	if (!error && getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &current, &size) < 0)
		error = -errno;
	if (!error)
		*ret_bytes = (uint32_t)current;
	return error;
}

int sockets_force_buffers(
	const int *sockets, size_t sockets_count, uint32_t bytes, struct verb_outcome *outcome)
{
	uint32_t smallest = UINT32_MAX;

	if (bytes > VERB_BUFFER_MAX)
		bytes = VERB_BUFFER_MAX;
	for (size_t i = 0; i < sockets_count; i++)
		if (!is_unix_socket(sockets[i]))
			return outcome_fail(outcome, -EINVAL, "fd %zu is no AF_UNIX socket", i);
	for (size_t i = 0; i < sockets_count; i++) {
		uint32_t current;
		int error = force_buffers(sockets[i], bytes, &current);

		if (error)
			return outcome_fail(
				outcome, error, "enlarging socket %zu: %s", i, strerror(-error));
		if (current < smallest)
			smallest = current;
	}
	outcome->value = smallest;
	return 0;
}

int sockets_open_nft_events(struct verb_outcome *outcome)
{
	cleanup_fd int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
	struct sockaddr_nl address = {
		.nl_family = AF_NETLINK,
		.nl_groups = 1u << (NFNLGRP_NFTABLES - 1),
	};
	const int bytes = NFT_EVENTS_BUFFER;
	int error;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		error = -errno;
		return outcome_fail(outcome, error, "listening to nftables: %s", strerror(-error));
	}
	/* Not everywhere: in a user namespace of its own priv may not force it. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	return outcome_add_fd(outcome, take_fd(&fd));
}

int sockets_open_route(struct verb_outcome *outcome)
{
	cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct sockaddr_nl address = {.nl_family = AF_NETLINK};
	int error;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		error = -errno;
		return outcome_fail(outcome, error, "asking rtnetlink: %s", strerror(-error));
	}
	return outcome_add_fd(outcome, take_fd(&fd));
}
