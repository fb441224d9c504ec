/*
 * Packets of one interface, as the kernel's packet socket gives them (packet(7)), made into blocks
 * of pcapng where they lie.
 */
#pragma once

#include "base/cleanup.h"
#include "priv/capture-order.h"

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* Packets received at once: one wake-up for some hundred kilobytes of large frames. */
#define CAPTURE_BATCH 32

/* An interface that is listened on. */
struct capture_source {
	int fd;
	char name[IFNAMSIZ];
	char comment[CAPTURE_COMMENT_SIZE];
	uint32_t interface; /* its number in the section */
	uint32_t mtu;
	uint64_t start_ns;
	uint64_t received, dropped; /* as far as the kernel was asked */
	uint32_t unread;            /* packets since then */
	bool is_down;               /* its interface is, or has gone, since down_ns */
	uint64_t down_ns;
};

struct capture_batch;

/* Room for CAPTURE_BATCH packets of snaplen bytes; touched only as far as packets reach. -ENOMEM.
 */
int capture_batch_new(uint32_t snaplen, struct capture_batch **ret_batch);

/* NULL is allowed. */
void capture_batch_free(struct capture_batch *batch);
DEFINE_CLEANUP(struct capture_batch, capture_batch_free)

/*
 * Receives what waits at a source, at most maximum (1 to CAPTURE_BATCH) packets. Returns how many;
 * ret_blocks are their blocks, which lie in the batch until the next call. 0: nothing waits, or its
 * interface went down, which source->is_down says then.
 */
int capture_batch_receive(struct capture_batch *batch, struct capture_source *source,
	unsigned int maximum, struct iovec ret_blocks[CAPTURE_BATCH]);

/* Nothing more comes in: what waits already can be received still. */
void capture_source_stop(struct capture_source *source);

/* Asks the kernel what it gave to the source and what it had no room for. */
void capture_source_count(struct capture_source *source);

/* Whether the interface that a packet socket was bound to is no more. */
bool capture_interface_has_gone(int fd);
