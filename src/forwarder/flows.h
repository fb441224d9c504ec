/*
 * The table of UDP flows: whose packet goes out by which socket. A flow is all that one peer sends
 * to one forward at one address of the host. Pure but for the memory; sockets are the caller's.
 */
#pragma once

#include "forwarder/listener.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* Compared as bytes: what is not written is 0. */
struct flow_key {
	const struct listener *listener;
	uint8_t peer[16];  /* IPv4 in the first 4 bytes, network byte order */
	uint8_t local[16]; /* the address the packet was sent to */
	uint32_t scope;    /* where one of the two is link-local: on which link; else 0 */
	uint16_t port;     /* the peer's, network byte order */
	uint16_t zero;
};

struct flow {
	struct watch watch;
	struct flow_key key;
	struct forwarder_forward forward; /* as it was when the flow began */
	void *owner;
	int fd; /* connected to the VM; the caller's; -1: none */
	uint64_t used_ms;
	struct flow *next;            /* with the same hash, or free */
	struct flow *older, *younger; /* by used_ms */
};

struct flows {
	struct flow *all;      /* owned */
	struct flow **buckets; /* owned */
	size_t count_max, count, buckets_count;
	uint64_t seed; /* so that strangers cannot choose who shares a bucket */
	struct flow *unused, *oldest, *youngest;
};

/* -ENOMEM. */
int flows_init(struct flows *flows, size_t count_max, uint64_t seed);
void flows_done(struct flows *flows);

/* NULL when there is none. */
struct flow *flows_find(const struct flows *flows, const struct flow_key *key);

/* A flow of a key that has none, used now_ms, without a socket. NULL when the table is full: then
 * flows->oldest is the one to remove. */
struct flow *flows_add(struct flows *flows, const struct flow_key *key, uint64_t now_ms);

/* It becomes the youngest. */
void flows_use(struct flows *flows, struct flow *flow, uint64_t now_ms);

/* The caller has closed its socket. */
void flows_remove(struct flows *flows, struct flow *flow);
