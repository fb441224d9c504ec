/* Asking the kernel by netlink (netlink(7), libnl-3). */
#include "broker/linux.h"

#include <errno.h>
#include <netlink/errno.h>
#include <netlink/msg.h>

#define DUMP_TRIES 10

DEFINE_CLEANUP(struct nl_sock, nl_socket_free)
DEFINE_CLEANUP(struct nl_msg, nlmsg_free)

static int error_to_errno(int error)
{
	switch (-error) {
	case NLE_SUCCESS:
		return 0;
	case NLE_NODEV:
	case NLE_OBJ_NOTFOUND:
		return -ENODEV;
	case NLE_NOMEM:
		return -ENOBUFS;
	case NLE_DUMP_INTR:
		return -EINTR;
	default:
		return -EIO;
	}
}

/* The networks' namespace is priv's, and the socket is of the namespace it was made in. */
static int take_socket(struct platform *platform, struct nl_sock *socket)
{
	struct verb_request request = {.verb = VERB_OPEN_ROUTE_SOCKET};
	cleanup_fds struct fd_list fds;
	cleanup_fd int fd = -1;
	int error;

	fd_list_init(&fds);
	error = linux_call(platform, &request, NULL, 0, NULL, &fds, NULL);
	if (error)
		return error;
	fd = fd_list_take(&fds, 0);
	if (fd < 0 || nl_socket_set_fd(socket, NETLINK_ROUTE, fd) < 0)
		return -EPROTO;
	take_fd(&fd);
	return 0;
}

int linux_open_routes(struct platform *platform, struct nl_sock **ret_socket)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = nl_socket_alloc();
	int error = 0;

	if (!socket)
		return -ENOMEM;
	if (platform && platform->is_rootless)
		error = take_socket(platform, socket);
	else if (nl_connect(socket, NETLINK_ROUTE) < 0)
		error = -EIO;
	if (!error)
		*ret_socket = take_ptr(socket);
	return error;
}

static int ask(struct platform *platform, int type, int flags, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = NULL;
	cleanup_with(nlmsg_free) struct nl_msg *message = nlmsg_alloc_simple(type, flags);
	int error = linux_open_routes(platform, &socket);

	if (error)
		return error;
	if (!message)
		return -ENOMEM;
	/* The answer is the acknowledgement. */
	nl_socket_disable_auto_ack(socket);
	nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, valid, context);
	error = nlmsg_append(message, header, header_size, NLMSG_ALIGNTO);
	if (!error)
		error = nl_send_auto(socket, message);
	if (error >= 0)
		error = nl_recvmsgs_default(socket);
	return error < 0 ? error_to_errno(error) : 0;
}

int linux_dump(struct platform *platform, int type, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context)
{
	int error = -EINTR;

	for (int tries = 0; error == -EINTR && tries < DUMP_TRIES; tries++)
		error = ask(platform, type, NLM_F_DUMP, header, header_size, valid, context);
	return error;
}

int linux_get(struct platform *platform, int type, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context)
{
	return ask(platform, type, 0, header, header_size, valid, context);
}
