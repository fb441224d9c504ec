/*
 * Keeps one network's dnsmasq alive: start, readiness, restart with back-off; and has it read its
 * hosts file. The process itself is the platform's; this is its state machine.
 */
#pragma once

#include "broker/platform.h"
#include "broker/rate-limit.h"

enum dhcp_state {
	DHCP_STOPPED,  /* not wanted; leaves by dhcp_start() */
	DHCP_STARTING, /* runs and has not said that it serves; leaves by that line, by its death
			     or by the time-out */
	DHCP_SERVING,  /* leaves by its death */
	DHCP_WAITING,  /* died too often for a restart at once; leaves by the back-off's end */
	DHCP_STATE_COUNT,
};

/* Somebody who goes on when dnsmasq has read what the hosts file says now. Zero it first. */
struct dhcp_waiter {
	void (*done)(void *context); /* called once; may wait again */
	void *context;
	struct dhcp *dhcp; /* dhcp.c's, as the rest; NULL while it does not wait */
	struct dhcp_waiter *next;
	unsigned int reads_left;
};

/* Told to the owner; both may call dhcp_stop(). */
struct dhcp_owner {
	/* It serves. */
	void (*serving)(void *context);
	/* It could not be started, or died before it served; it will be tried again. */
	void (*failed)(void *context, const char *reason);
	/* It has leased an address to a VM under this name, a valid one; again with each renewal.
	 */
	void (*named)(void *context, struct mac mac, const char *name);
	/* It has leased an address, or renewed that; name: as it knows the VM, empty: not at all.
	 */
	void (*leased)(void *context, struct mac mac, struct in_addr address, const char *name);
	/* A VM gave its address back. */
	void (*released)(void *context, struct mac mac, struct in_addr address);
	/* It has ended: one line for people. */
	void (*warned)(void *context, const char *text);
	/* It said something that tells of trouble; its words may name any VM and what it asked. */
	void (*complained)(void *context, const char *text);
};

/* Zero it, then dhcp_init(). The fields are dhcp.c's. */
struct dhcp {
	struct platform *platform;
	const char *network; /* borrowed */
	const struct dhcp_owner *owner;
	void *context;
	struct platform_service service;
	enum dhcp_state state;
	struct platform_timer *timer;
	uint32_t deaths; /* in a row; each makes the back-off longer */
	/*
	 * dnsmasq reads its files once after its start and once for each SIGHUP, and logs each
	 * time: that of names first, which it reads for DNS, then that of hosts, which it reads for
	 * DHCP and advertisements. So that a line belongs to one reading, it is not told again
	 * before it has logged.
	 */
	bool is_reading;    /* leaves by the line, the read timer or its end */
	bool reload_wanted; /* the file may be newer than what it reads */
	struct platform_timer *read_timer;
	struct dhcp_waiter *waiters;
	char last_warning[128]; /* the best explanation of its death */
	struct rate_limit lines;
};

/* network and owner stay the caller's and must outlive it. */
int dhcp_init(struct dhcp *dhcp, struct platform *platform, const char *network,
	const struct dhcp_owner *owner, void *context);

/* Frees what belongs to it; the process is left alone. Half-built and zeroed ones are allowed. */
void dhcp_done(struct dhcp *dhcp);

/*
 * Wants it to run, and to serve this. An owner's call-back says what came of it, perhaps before
 * this returns. One that runs already goes on as it is.
 */
void dhcp_start(struct dhcp *dhcp, const struct platform_service *service);

/* Ends it; no call-back follows. */
void dhcp_stop(struct dhcp *dhcp);

/* The hosts file is another now: a start reads it, one that has begun is told when it serves. */
void dhcp_reload(struct dhcp *dhcp);

/*
 * Calls waiter->done when dnsmasq has read what the hosts file says now, or, for whatever reason,
 * will not have done so soon: it has ended, or was silent for a second. False, and no call follows,
 * when it has read that already. The waiter stays the caller's, at its place.
 */
bool dhcp_wait_for_hosts(struct dhcp *dhcp, struct dhcp_waiter *waiter);

/* No call follows. One that does not wait is allowed. */
void dhcp_waiter_cancel(struct dhcp_waiter *waiter);

/* The platform's events. */
void dhcp_take_line(struct dhcp *dhcp, const char *line);
void dhcp_take_end(struct dhcp *dhcp);

/* Whether a line of dnsmasq's log, which has no levels, tells of trouble. Pure. */
bool dhcp_line_is_warning(const char *line);
