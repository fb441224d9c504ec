/* Noticing that the guard's rules are not what they should be: nft events, and the ends of
 * interfaces that had rules of their own. */
#include "broker/linux.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>

/* Our own change is over in far less; a foreign one is repaired within a second. */
#define DEBOUNCE_MS 100
/* Rules of interfaces that have gone do no harm, and removing them makes priv wait for the kernel
 * (8 to 20 ms): once for all that end together. */
#define SWEEP_MS 3000

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
	struct nft_events *events;
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

static void take_event(void *context, struct nlmsghdr *message)
{
	struct guard_watch *watch = context;
	const struct nlattr *table;

	if (!message) {
		take_damage(watch);
		return;
	}
	/* The table's name is the first attribute of everything in it, too. */
	table = nlmsg_find_attr(message, sizeof(struct nfgenmsg), NFTA_TABLE_NAME);
	if (!table || strcmp(nla_get_string(table), watch->table) != 0)
		return;
	if (NFNL_MSG_TYPE(message->nlmsg_type) == NFT_MSG_NEWTABLE)
		watch->damaged = false;
	else if (nft_event_removes(message))
		take_damage(watch);
}

static void handle_damage(void *context)
{
	struct guard_watch *watch = context;
	bool damaged;

	nft_events_read_queued(watch->events);
	damaged = watch->damaged;
	watch->armed = false;
	watch->damaged = false;
	if (damaged)
		watch->platform->events->guard_stale(
			watch->platform->context, "somebody removed them");
}

void guard_watch_free(struct guard_watch *watch)
{
	if (!watch)
		return;
	platform_timer_free(watch->damage_timer);
	platform_timer_free(watch->sweep_timer);
	nft_events_free(watch->events);
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
	guard_table_name(platform->instance, watch->table);
	error = platform_timer_new(platform, handle_damage, watch, &watch->damage_timer);
	if (!error)
		error = platform_timer_new(platform, handle_sweep, watch, &watch->sweep_timer);
	if (!error)
		error = nft_events_new(platform, take_event, watch, &watch->events);
	if (error)
		return error;
	*ret_watch = take_ptr(watch);
	return 0;
}
