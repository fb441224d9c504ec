/* The kernel's word on every change of nftables, over a socket that priv opened. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define BUFFER_SIZE 65536
/* Others may never cease to change theirs. */
#define READS_MAX 256

struct nft_events {
	nft_event *take;
	void *context;
	int fd;
	sd_event_source *source;
};

/* Reads once. False when there was nothing. */
static bool read_events(struct nft_events *events)
{
	static char buffer[BUFFER_SIZE] __attribute__((aligned(NLMSG_ALIGNTO)));
	ssize_t size = recv(events->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

	/* Something was said and lost. */
	if (size < 0 && errno == ENOBUFS) {
		events->take(events->context, NULL);
		return true;
	}
	if (size < 0)
		return false;
	for (struct nlmsghdr *message = (struct nlmsghdr *)(void *)buffer;
		nlmsg_ok(message, (int)size);) {
		int left = (int)size;

		if (NFNL_SUBSYS_ID(message->nlmsg_type) == NFNL_SUBSYS_NFTABLES)
			events->take(events->context, message);
		message = nlmsg_next(message, &left);
		size = left;
	}
	return true;
}

static int handle_readable(sd_event_source *source, int fd, uint32_t mask, void *userdata)
{
	read_events(userdata);
	return 0;
}

void nft_events_read_queued(struct nft_events *events)
{
	for (int i = 0; i < READS_MAX && read_events(events); i++)
		;
}

bool nft_event_removes(const struct nlmsghdr *message)
{
	switch (NFNL_MSG_TYPE(message->nlmsg_type)) {
	case NFT_MSG_DELTABLE:
	case NFT_MSG_DELCHAIN:
	case NFT_MSG_DELRULE:
	case NFT_MSG_DELSET:
	case NFT_MSG_DELSETELEM:
		return true;
	default:
		return false;
	}
}

void nft_events_free(struct nft_events *events)
{
	if (!events)
		return;
	sd_event_source_disable_unref(events->source);
	fd_close(events->fd);
	free(events);
}
DEFINE_CLEANUP(struct nft_events, nft_events_free)

int nft_events_new(
	struct platform *platform, nft_event *take, void *context, struct nft_events **ret_events)
{
	cleanup_with(nft_events_free) struct nft_events *events = calloc(1, sizeof(*events));
	struct verb_request request = {.verb = VERB_OPEN_NFT_EVENTS};
	cleanup_fds struct fd_list fds;
	int error;

	if (!events)
		return -ENOMEM;
	*events = (struct nft_events){.take = take, .context = context, .fd = -1};
	fd_list_init(&fds);
	error = linux_call(platform, &request, NULL, 0, NULL, &fds, NULL);
	if (error)
		return error;
	events->fd = fd_list_take(&fds, 0);
	if (events->fd < 0)
		return -EPROTO;
	error = sd_event_add_io(
		platform->event, &events->source, events->fd, EPOLLIN, handle_readable, events);
	if (error < 0)
		return error;
	*ret_events = take_ptr(events);
	return 0;
}
