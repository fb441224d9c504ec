/*
 * What happens, told to those who listen, as it happens. Telling is cheap while nobody listens.
 */
#pragma once

#include "broker/credentials.h"
#include "broker/interface.h"
#include "wire/broker-event.h"

/* Pointers are borrowed; what an event has not is NULL. */
struct event {
	enum broker_event_kind kind;
	const char *what;    /* "running", "created", ...; docs/protocol.md has them all */
	const char *network; /* whose name: who may use it may know of the event */
	const struct interface *interface;
	const struct forward *forward;
	const struct broker_lease *lease;
	bool has_owner; /* only that user and root may know of it, whatever network says */
	uid_t owner;
	const char *text; /* for people, one line */
	uint64_t count;   /* of BROKER_EVENT_MISSED */
};

/* The struct is the listener's and stays at its place. */
struct event_listener {
	struct event_listener *next; /* events.c's */
	/* Must neither change what the registry has nor end listening. */
	void (*take)(void *context, const struct event *event);
	void *context;
};

/* From now on take is called for every event, until events_unlisten(). */
void events_listen(struct registry *registry, struct event_listener *listener);

/* One that does not listen is allowed. */
void events_unlisten(struct registry *registry, struct event_listener *listener);

/* Tells all who listen. */
void events_tell(const struct registry *registry, const struct event *event);

/* A network is in another state now: "starting", "running", "lingering", "absent". */
void events_tell_network(const struct network *network);

/* Something became of an interface; text NULL: there is nothing to add. */
void events_tell_interface(const struct interface *interface, const char *what, const char *text);

/* The same of a forward. */
void events_tell_forward(
	const struct registry *registry, const struct forward *forward, const char *what);

/* Something is wrong with a network: what is a word for programs. */
void events_tell_warning(const struct network *network, const char *what, const char *text);

/* What dnsmasq has to say of a network, which may be of any VM: for root. */
void events_tell_complaint(const struct network *network, const char *text);

/* A user's call was refused. */
void events_tell_refusal(const struct registry *registry, uid_t uid, const struct failure *failure);

/* The configuration was read again; then each of its mistakes. */
void events_tell_configuration(struct registry *registry);

/* What a state and its network are, as an event of a network says it; text has
 * BROKER_REASON_SIZE bytes. */
const char *events_describe_network(const struct network *network, char *text);

/* Whether a user may know of an event. */
bool event_is_for(
	const struct registry *registry, const struct event *event, const struct credentials *user);

/* As Monitor tells it, with the time it is now. A new reference; NULL when memory is out. */
json_t *event_encode(const struct event *event, bool is_state);
