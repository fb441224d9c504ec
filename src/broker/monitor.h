/*
 * Monitor: what there is, then what happens, to one connection that may know of it.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/network.h"
#include "broker/peer.h"
#include "wire/broker-event.h"

/* Beyond this many bytes that wait for the peer it is only told how many events it missed. */
#define MONITOR_BACKLOG_MAX (64u << 10)

struct monitor;

/*
 * Takes the peer's call over: events of networks, interfaces and forwards that are its own or that
 * it may use, for root all. Both outlive the monitor. -ENOMEM.
 */
int monitor_new(struct peer *peer, struct registry *registry, const struct monitor_call *call,
	struct monitor **ret_monitor);

/* NULL is allowed. */
void monitor_free(struct monitor *monitor);
DEFINE_CLEANUP(struct monitor, monitor_free)
