#include "broker/monitor.h"

#include "broker/drops.h"
#include "broker/events.h"
#include "broker/forward.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* What of the state is told next. */
enum monitor_phase {
	MONITOR_NETWORKS,   /* key: the name of the last one told; then interfaces */
	MONITOR_INTERFACES, /* from: the smallest number not told yet; then forwards */
	MONITOR_FORWARDS,   /* the same with their ids; then ready */
	MONITOR_READY,      /* that it was all; then live */
	MONITOR_LIVE,       /* nothing any more */
	MONITOR_PHASE_COUNT,
};

struct monitor {
	struct peer *peer;
	struct registry *registry;
	char network[NETWORK_NAME_SIZE]; /* the only one; empty: all */
	struct event_listener listener;
	enum monitor_phase phase;
	char key[NETWORK_NAME_SIZE];
	uint64_t from;
	uint64_t missed;
};

static bool is_full(const struct monitor *monitor)
{
	return monitor->peer->dead || peer_backlog(monitor->peer) > MONITOR_BACKLOG_MAX;
}

static bool is_wanted(const struct monitor *monitor, const struct event *event)
{
	if (*monitor->network && (!event->network || strcmp(event->network, monitor->network) != 0))
		return false;
	return event_is_for(monitor->registry, event, &monitor->peer->credentials);
}

static void tell(struct monitor *monitor, const struct event *event, bool is_state)
{
	peer_stream(monitor->peer, event_encode(event, is_state));
}

static void tell_of_itself(struct monitor *monitor, enum broker_event_kind kind, uint64_t count)
{
	tell(monitor,
		&(struct event){
			.kind = kind,
			.what = kind == BROKER_EVENT_MISSED ? "missed" : "ready",
			.count = count,
		},
		false);
}

/* --- the state, one at a time, because it may be longer than what may wait --- */

static void enter_phase(struct monitor *monitor, enum monitor_phase phase)
{
	monitor->phase = phase;
	monitor->from = 0;
}

static void tell_next_network(struct monitor *monitor)
{
	const struct network *network = monitor->registry->networks;
	char text[BROKER_REASON_SIZE];
	struct event event = {.kind = BROKER_EVENT_NETWORK};

	while (network &&
		(network->state == NETWORK_ABSENT || strcmp(network->name, monitor->key) <= 0))
		network = network->next;
	if (!network) {
		enter_phase(monitor, MONITOR_INTERFACES);
		return;
	}
	text_copy(monitor->key, sizeof(monitor->key), network->name);
	event.network = network->name;
	event.what = events_describe_network(network, text);
	event.text = text;
	if (is_wanted(monitor, &event))
		tell(monitor, &event, true);
}

/* The one with the smallest number from there on. */
static const struct interface *find_next_interface(const struct monitor *monitor)
{
	const struct interface *next = NULL;

	for (const struct network *network = monitor->registry->networks; network;
		network = network->next)
		for (const struct interface *found = network->interfaces; found;
			found = found->next)
			if (found->number >= monitor->from &&
				(!next || found->number < next->number))
				next = found;
	return next;
}

static void tell_next_interface(struct monitor *monitor)
{
	const struct interface *interface = find_next_interface(monitor);
	struct event event = {.kind = BROKER_EVENT_INTERFACE, .what = "present", .has_owner = true};

	if (!interface) {
		enter_phase(monitor, MONITOR_FORWARDS);
		return;
	}
	monitor->from = (uint64_t)interface->number + 1;
	event.network = interface->network->name;
	event.interface = interface;
	event.owner = interface->record.uid;
	if (is_wanted(monitor, &event))
		tell(monitor, &event, true);
}

static void tell_next_forward(struct monitor *monitor)
{
	const struct forwards *forwards = monitor->registry->forwards;
	const struct forward *forward = forwards ? forwards->list : NULL;
	struct event event = {.kind = BROKER_EVENT_FORWARD, .has_owner = true};

	while (forward && forward->record.id < monitor->from)
		forward = forward->next;
	if (!forward) {
		enter_phase(monitor, MONITOR_READY);
		return;
	}
	monitor->from = (uint64_t)forward->record.id + 1;
	event.what = forward->is_active ? "active" : "waiting";
	event.network = forward->record.network;
	event.forward = forward;
	event.owner = forward->record.uid;
	if (is_wanted(monitor, &event))
		tell(monitor, &event, true);
}

static void tell_ready(struct monitor *monitor)
{
	tell_of_itself(monitor, BROKER_EVENT_READY, 0);
	enter_phase(monitor, MONITOR_LIVE);
}

static void go_on(struct monitor *monitor)
{
	static void (*const tell_next[])(struct monitor * monitor) = {
		[MONITOR_NETWORKS] = tell_next_network,
		[MONITOR_INTERFACES] = tell_next_interface,
		[MONITOR_FORWARDS] = tell_next_forward,
		[MONITOR_READY] = tell_ready,
		[MONITOR_LIVE] = NULL,
	};
	static_assert(array_length(tell_next) == MONITOR_PHASE_COUNT, "one step a phase");

	while (!is_full(monitor) && tell_next[monitor->phase])
		tell_next[monitor->phase](monitor);
}

/* --- what happens --- */

static void take_event(void *context, const struct event *event)
{
	struct monitor *monitor = context;

	if (!is_wanted(monitor, event))
		return;
	/* In order: nothing comes before it is told that something is missing. */
	if (monitor->missed > 0 || is_full(monitor))
		monitor->missed++;
	else
		tell(monitor, event, false);
}

static void handle_drained(void *context)
{
	struct monitor *monitor = context;
	uint64_t missed = monitor->missed;

	monitor->missed = 0;
	if (missed > 0)
		tell_of_itself(monitor, BROKER_EVENT_MISSED, missed);
	go_on(monitor);
}

int monitor_new(struct peer *peer, struct registry *registry, const struct monitor_call *call,
	struct monitor **ret_monitor)
{
	struct monitor *monitor = calloc(1, sizeof(*monitor));

	if (!monitor)
		return -ENOMEM;
	monitor->peer = peer;
	monitor->registry = registry;
	memcpy(monitor->network, call->network, sizeof(monitor->network));
	monitor->phase = call->without_state ? MONITOR_READY : MONITOR_NETWORKS;
	monitor->listener.take = take_event;
	monitor->listener.context = monitor;
	events_listen(registry, &monitor->listener);
	drops_listen(registry);
	*ret_monitor = monitor;
	peer_start_stream(peer, handle_drained, monitor);
	go_on(monitor);
	return 0;
}

void monitor_free(struct monitor *monitor)
{
	if (!monitor)
		return;
	drops_unlisten(monitor->registry);
	events_unlisten(monitor->registry, &monitor->listener);
	free(monitor);
}
