#include "base/fdpass.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* Room for one fd more than allowed, so that a sender of too many is seen before the kernel
 * truncates. */
#define CONTROL_SIZE CMSG_SPACE(sizeof(int) * (FD_PASS_MAX + 1))

void fd_list_init(struct fd_list *list)
{
	for (size_t i = 0; i < FD_PASS_MAX; i++)
		list->fds[i] = -1;
	list->count = 0;
}

void fd_list_done(struct fd_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		fd_close(list->fds[i]);
	fd_list_init(list);
}

int fd_list_take(struct fd_list *list, size_t index)
{
	if (index >= list->count || list->fds[index] < 0)
		return -EBADF;
	return take_fd(&list->fds[index]);
}

ssize_t fd_send(int socket, const void *data, size_t size, const int *fds, size_t fds_count)
{
	union {
		char bytes[CONTROL_SIZE];
		struct cmsghdr alignment;
	} control = {0};
	struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t sent;

	if (fds_count > FD_PASS_MAX || size == 0)
		return -EINVAL;
	if (fds_count > 0) {
		struct cmsghdr *header;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * fds_count);
	}
	do {
		sent = sendmsg(socket, &message, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

/* Owns every fd of one control message; returns false when there were more than the list holds. */
static bool collect_fds(struct cmsghdr *header, struct fd_list *list)
{
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	bool fits = true;

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
		if (list->count < FD_PASS_MAX) {
			list->fds[list->count++] = fd;
			continue;
		}
		fd_close(fd);
		fits = false;
	}
	return fits;
}

ssize_t fd_receive(int socket, void *buffer, size_t size, struct fd_list *ret_fds)
{
	union {
		char bytes[CONTROL_SIZE];
		struct cmsghdr alignment;
	} control;
	struct iovec part = {.iov_base = buffer, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	cleanup_fds struct fd_list list;
	bool fits = true;
	ssize_t received;

	fd_list_init(&list);
	do {
		received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	} while (received < 0 && errno == EINTR);
	if (received < 0)
		return -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
		header = CMSG_NXTHDR(&message, header))
		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
			fits = collect_fds(header, &list) && fits;
	if (!fits || message.msg_flags & (MSG_CTRUNC | MSG_TRUNC))
		return -EBADMSG;
	*ret_fds = list;
	list.count = 0;
	return received;
}
