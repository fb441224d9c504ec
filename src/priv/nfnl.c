#include "priv/nfnl.h"

#include "priv/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <string.h>

/* A rule of ours, and the two messages around it, are some 600 bytes. */
#define TRANSACTION_SIZE 2048

static int error_to_errno(int error)
{
	if (error == -NLE_DUMP_INTR)
		return -EINTR;
	if (error == -NLE_OBJ_NOTFOUND)
		return -ENOENT;
	return rtnl_error_to_errno(error);
}

int nfnl_open(struct nl_sock **ret_socket)
{
	cleanup_with(nl_socket_free) struct nl_sock *socket = nl_socket_alloc();
	int error;

	if (!socket)
		return -ENOMEM;
	/* Three messages of a transaction are answered with one. */
	nl_socket_disable_seq_check(socket);
	error = nl_connect(socket, NETLINK_NETFILTER);
	if (error)
		return error_to_errno(error);
	*ret_socket = take_ptr(socket);
	return 0;
}

static struct nl_msg *new_message(int type, uint8_t family, uint16_t resource, int flags)
{
	struct nfgenmsg header = {
		.nfgen_family = family,
		.version = NFNETLINK_V0,
		.res_id = htons(resource),
	};
	struct nl_msg *message = nlmsg_alloc_simple(type, flags | NLM_F_REQUEST);

	if (message && nlmsg_append(message, &header, sizeof(header), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

struct nl_msg *nfnl_message(int type, uint8_t family, int flags)
{
	return new_message(NFNL_SUBSYS_NFTABLES << 8 | type, family, 0, flags);
}

int nfnl_dump(
	struct nl_sock *socket, struct nl_msg *request, nl_recvmsg_msg_cb_t valid, void *context)
{
	cleanup_with(nlmsg_free) struct nl_msg *owned = request;
	int error;

	nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, valid, context);
	nl_socket_disable_auto_ack(socket);
	nlmsg_hdr(owned)->nlmsg_flags |= NLM_F_DUMP;
	error = nl_send_auto(socket, owned);
	if (error >= 0)
		error = nl_recvmsgs_default(socket);
	return error < 0 ? error_to_errno(error) : 0;
}

struct transaction {
	uint8_t bytes[TRANSACTION_SIZE] __attribute__((aligned(NLMSG_ALIGNTO)));
	size_t size;
};

static int add_message(struct transaction *transaction, struct nl_msg *message)
{
	const struct nlmsghdr *header = nlmsg_hdr(message);
	size_t size = NLMSG_ALIGN(header->nlmsg_len);

	if (transaction->size + size > sizeof(transaction->bytes))
		return -EMSGSIZE;
	memcpy(transaction->bytes + transaction->size, header, header->nlmsg_len);
	transaction->size += size;
	return 0;
}

int nfnl_commit(struct nl_sock *socket, struct nl_msg *change)
{
	cleanup_with(nlmsg_free) struct nl_msg *owned = change;
	cleanup_with(nlmsg_free) struct nl_msg *begin =
		new_message(NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, 0);
	cleanup_with(nlmsg_free) struct nl_msg *end =
		new_message(NFNL_MSG_BATCH_END, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, 0);
	struct transaction transaction = {.size = 0};
	int error;

	if (!begin || !end)
		return -ENOMEM;
	nlmsg_hdr(owned)->nlmsg_flags |= NLM_F_ACK;
	error = add_message(&transaction, begin);
	if (!error)
		error = add_message(&transaction, owned);
	if (!error)
		error = add_message(&transaction, end);
	if (error)
		return error;
	error = nl_sendto(socket, transaction.bytes, transaction.size);
	if (error >= 0)
		error = nl_wait_for_ack(socket);
	return error < 0 ? error_to_errno(error) : 0;
}
