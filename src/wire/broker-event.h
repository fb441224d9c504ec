/*
 * What Monitor tells, one message an event. Pure. docs/protocol.md has the words.
 */
#pragma once

#include "wire/messages.h"

enum broker_event_kind {
	BROKER_EVENT_NETWORK,
	BROKER_EVENT_INTERFACE,
	BROKER_EVENT_LEASE,
	BROKER_EVENT_FORWARD,
	BROKER_EVENT_CONFIGURATION,
	BROKER_EVENT_WARNING, /* something is wrong with a network or an interface */
	BROKER_EVENT_REFUSAL, /* a call was refused */
	BROKER_EVENT_MISSED,  /* count events were not told: the peer read too slowly */
	BROKER_EVENT_READY,   /* all that there was has been told */
	BROKER_EVENT_KIND_COUNT,
};

/* What dnsmasq has given to a VM. */
struct broker_lease {
	struct mac mac;
	struct in_addr address;
	const char *hostname; /* that the VM told, or its network has for it; empty: none */
};

/* One event. Pointers are borrowed; what an event has not is NULL. */
struct broker_event {
	uint64_t time_us; /* since 1970, UTC */
	enum broker_event_kind kind;
	const char *what; /* of the kind: "running", "created", ... */
	bool is_state;    /* it was so before the call */
	const char *network;
	const struct broker_interface *interface;
	const struct broker_forward *forward;
	const struct broker_lease *lease;
	bool has_uid;
	uint32_t uid;     /* whose it is, or who called */
	const char *text; /* for people, one line */
	uint64_t count;   /* of BROKER_EVENT_MISSED; else 0 */
};

/*
 * {"event": Event}. Bytes of text that are no UTF-8 become '?', as an event has to reach its
 * reader. A new reference; NULL when memory is out.
 */
json_t *broker_event_encode(const struct broker_event *event);

/* Monitor(network, state). */
struct monitor_call {
	char network[NETWORK_NAME_SIZE]; /* empty: all */
	bool without_state;              /* nothing is told of what was so before */
};

/* As the decoders of messages.h. */
int monitor_decode(json_t *parameters, struct monitor_call *ret_call, char *reason);
