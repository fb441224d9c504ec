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

static int ask(int type, int flags, void *header, size_t header_size, nl_recvmsg_msg_cb_t valid,
	void *context)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = nl_socket_alloc();
	cleanup_with(nlmsg_free) struct nl_msg *message = nlmsg_alloc_simple(type, flags);
	int error;

	if (!socket || !message)
		return -ENOMEM;
	/* The answer is the acknowledgement. */
	nl_socket_disable_auto_ack(socket);
	nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, valid, context);
	error = nl_connect(socket, NETLINK_ROUTE);
	if (!error)
		error = nlmsg_append(message, header, header_size, NLMSG_ALIGNTO);
	if (!error)
		error = nl_send_auto(socket, message);
	if (error >= 0)
		error = nl_recvmsgs_default(socket);
	return error < 0 ? error_to_errno(error) : 0;
}

int linux_dump(int type, void *header, size_t header_size, nl_recvmsg_msg_cb_t valid, void *context)
{
	int error = -EINTR;

	for (int tries = 0; error == -EINTR && tries < DUMP_TRIES; tries++)
		error = ask(type, NLM_F_DUMP, header, header_size, valid, context);
	return error;
}

int linux_get(int type, void *header, size_t header_size, nl_recvmsg_msg_cb_t valid, void *context)
{
	return ask(type, 0, header, header_size, valid, context);
}
