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

/* The answer to one dump, until it is known to be whole. */
struct dump {
	struct nl_msg **messages;
	size_t count;
};

static void drop(struct dump *dump)
{
	for (size_t i = 0; i < dump->count; i++)
		nlmsg_free(dump->messages[i]);
	free(dump->messages);
	*dump = (struct dump){0};
}

static int collect(struct nl_msg *message, void *context)
{
	struct dump *dump = context;
	struct nl_msg **grown =
		reallocarray(dump->messages, dump->count + 1, sizeof(*dump->messages));

	if (!grown)
		return -NLE_NOMEM;
	nlmsg_get(message);
	dump->messages = grown;
	dump->messages[dump->count++] = message;
	return NL_OK;
}

static int pass_on(const struct dump *dump, nl_recvmsg_msg_cb_t valid, void *context)
{
	int result = NL_OK;

	for (size_t i = 0; i < dump->count && result >= 0 && result != NL_STOP; i++)
		result = valid(dump->messages[i], context);
	return result < 0 ? error_to_errno(result) : 0;
}

/* A dump that something changed meanwhile is asked for again, and of such a one nothing is passed
 * on: what both have would come twice. */
int linux_dump(struct platform *platform, int type, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context)
{
	struct dump dump = {0};
	int error = -EINTR;

	for (int tries = 0; error == -EINTR && tries < DUMP_TRIES; tries++) {
		drop(&dump);
		error = ask(platform, type, NLM_F_DUMP, header, header_size, collect, &dump);
	}
	if (!error)
		error = pass_on(&dump, valid, context);
	drop(&dump);
	return error;
}

int linux_get(struct platform *platform, int type, void *header, size_t header_size,
	nl_recvmsg_msg_cb_t valid, void *context)
{
	return ask(platform, type, 0, header, header_size, valid, context);
}
