/* Noticing that the guard's rules are not what they should be: nft events, and the ends of
 * interfaces that had rules of their own. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* Our own change is over in far less; a foreign one is repaired within a second. */
#define DEBOUNCE_MS 100
/* Rules of interfaces that have gone do no harm, and removing them makes priv wait for the kernel
 * (8 to 20 ms): once for all that end together. */
#define SWEEP_MS    3000
#define BUFFER_SIZE 65536
/* Others may never cease to change theirs. */
#define READS_MAX 256

/*
 * Our own change of the whole table deletes it and adds it again, and both are reported to us in
 * this order; a foreign one leaves a deletion last. So what counts is the last word within a short
 * time, and our own repair can not cause another.
 */
struct guard_watch {
	struct platform *platform;
	char table[GUARD_TABLE_SIZE];
	bool damaged;
	bool armed;
	bool sweeps;
	struct platform_timer *damage_timer;
	struct platform_timer *sweep_timer;
	int nft;
	sd_event_source *nft_source;
};

static void handle_sweep(void *context)
{
	struct guard_watch *watch = context;

	watch->sweeps = false;
	watch->platform->events->guard_stale(watch->platform->context, NULL);
}

void guard_watch_note_end(struct guard_watch *watch)
{
	if (!watch->sweeps)
		platform_timer_start(watch->sweep_timer, SWEEP_MS);
	watch->sweeps = true;
}

static void take_damage(struct guard_watch *watch)
{
	watch->damaged = true;
	if (!watch->armed)
		platform_timer_start(watch->damage_timer, DEBOUNCE_MS);
	watch->armed = true;
}

static void take_message(struct guard_watch *watch, struct nlmsghdr *message)
{
	const struct nlattr *table;

	if (NFNL_SUBSYS_ID(message->nlmsg_type) != NFNL_SUBSYS_NFTABLES)
		return;
	/* The table's name is the first attribute of everything in it, too. */
	table = nlmsg_find_attr(message, sizeof(struct nfgenmsg), NFTA_TABLE_NAME);
	if (!table || strcmp(nla_get_string(table), watch->table) != 0)
		return;
	switch (NFNL_MSG_TYPE(message->nlmsg_type)) {
	case NFT_MSG_NEWTABLE:
		watch->damaged = false;
		break;
	case NFT_MSG_DELTABLE:
	case NFT_MSG_DELCHAIN:
	case NFT_MSG_DELRULE:
	case NFT_MSG_DELSET:
	case NFT_MSG_DELSETELEM:
		take_damage(watch);
		break;
	}
}

/* Reads once. False when there was nothing. */
static bool read_nft(struct guard_watch *watch)
{
	static char buffer[BUFFER_SIZE] __attribute__((aligned(NLMSG_ALIGNTO)));
	ssize_t size = recv(watch->nft, buffer, sizeof(buffer), MSG_DONTWAIT);

	/* Something was said and lost. */
	if (size < 0 && errno == ENOBUFS) {
		take_damage(watch);
		return true;
	}
	if (size < 0)
		return false;
	for (struct nlmsghdr *message = (struct nlmsghdr *)(void *)buffer;
		nlmsg_ok(message, (int)size);) {
		int left = (int)size;

		take_message(watch, message);
		message = nlmsg_next(message, &left);
		size = left;
	}
	return true;
}

static int handle_nft(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	read_nft(userdata);
	return 0;
}

static void handle_damage(void *context)
{
	struct guard_watch *watch = context;
	bool damaged;

	/* The last word may wait behind what kept the loop busy. */
	for (int i = 0; i < READS_MAX && read_nft(watch); i++)
		;
	damaged = watch->damaged;
	watch->armed = false;
	watch->damaged = false;
	if (damaged)
		watch->platform->events->guard_stale(
			watch->platform->context, "somebody removed them");
}

static int watch_nft(struct guard_watch *watch)
{
	struct verb_request request = {.verb = VERB_OPEN_NFT_EVENTS};
	cleanup_fds struct fd_list fds;
	int error;

	fd_list_init(&fds);
	error = linux_call(watch->platform, &request, NULL, 0, NULL, &fds, NULL);
	if (error)
		return error;
	watch->nft = fd_list_take(&fds, 0);
	if (watch->nft < 0)
		return -EPROTO;
	error = sd_event_add_io(
		watch->platform->event, &watch->nft_source, watch->nft, EPOLLIN, handle_nft, watch);
	return error < 0 ? error : 0;
}

void guard_watch_free(struct guard_watch *watch)
{
	if (!watch)
		return;
	platform_timer_free(watch->damage_timer);
	platform_timer_free(watch->sweep_timer);
	sd_event_source_disable_unref(watch->nft_source);
	fd_close(watch->nft);
	free(watch);
}
DEFINE_CLEANUP(struct guard_watch, guard_watch_free)

int guard_watch_new(struct platform *platform, struct guard_watch **ret_watch)
{
	cleanup_with(guard_watch_free) struct guard_watch *watch = calloc(1, sizeof(*watch));
	int error;

	if (!watch)
		return -ENOMEM;
	watch->platform = platform;
	watch->nft = -1;
	guard_table_name(platform->instance, watch->table);
	error = platform_timer_new(platform, handle_damage, watch, &watch->damage_timer);
	if (!error)
		error = platform_timer_new(platform, handle_sweep, watch, &watch->sweep_timer);
	if (!error)
		error = watch_nft(watch);
	if (error)
		return error;
	*ret_watch = take_ptr(watch);
	return 0;
}
