/*
 * A platform without a system: unit tests look at what the registry asked for, make calls fail, and
 * fire events and timers by hand.
 */
#pragma once

#include "broker/platform.h"

#define FAKE_LINKS_MAX 64

struct fake_network {
	struct platform_network link;
	bool dhcp_runs;
	struct platform_service service; /* of its DHCP server, when last started */
	unsigned int reloads;            /* of its DHCP server */
};

struct fake_interface {
	struct platform_interface link;
	struct platform_port port;
	struct platform_counters host_to_vm, vm_to_host;
};

/* Public, unlike a real one. Errors are negative errno, 0 for none, and stay until changed. */
struct platform {
	struct fake_network networks[FAKE_LINKS_MAX];
	size_t networks_count;
	struct fake_interface interfaces[FAKE_LINKS_MAX];
	size_t interfaces_count;
	struct subnet_uses uses; /* of the host; owned */
	unsigned int nat_applied, guard_applied;
	/* What platform_apply_forwards() was given last. */
	struct platform_forward forwards[FAKE_LINKS_MAX];
	size_t forwards_count;
	unsigned int forwards_applied;
	bool forwards_ended_flows;
	int forwards_error;
	uint16_t refused_port;  /* forwards that listen on it have no rule; 0: none */
	uint16_t listener_port; /* a program of the host has it, on every address; 0: none */
	bool dhcp_serves_at_once;
	const char *port_holder; /* NULL: nobody */
	const char *resolvers;   /* resolv.conf; NULL: there is none */
	bool uplinks_are_nics;   /* and no bridges */
	int uplink_error, process_error;
	bool hides_names;
	uint32_t watched_number; /* the last interface whose process is watched; 0: none */
	struct platform_process watched_process;
	int create_error, attach_error, vhost_error, dhcp_error, nat_error, guard_error,
		destroy_error;
	/* Captures: how many were started, the numbers of those that run, what was added to them.
	 */
	uint32_t captures_started;
	uint32_t captures_running;
	char captured[256]; /* "CAPTURE NUMBER COMMENT\n" each */
	int capture_error;
	uint8_t next_random; /* platform_randomize() counts from here */
	struct platform_timer *timers;
	const struct platform_events *events;
	void *context;
};

/* An empty one; NULL when memory is out. */
struct platform *platform_fake_new(void);
void platform_fake_free(struct platform *platform);

/* NULL when there is none. */
struct fake_network *platform_fake_network(struct platform *platform, const char *name);
struct fake_interface *platform_fake_interface(struct platform *platform, uint32_t number);

/* What a system does by itself. */
void platform_fake_say_started(struct platform *platform, const char *network);
void platform_fake_say_read(struct platform *platform, const char *network);
void platform_fake_say_line(struct platform *platform, const char *network, const char *line);
void platform_fake_end_dhcp(struct platform *platform, const char *network);
void platform_fake_close_interface(struct platform *platform, uint32_t number);
void platform_fake_remove_bridge(struct platform *platform, const char *network);

/* Fires every timer that runs with this delay; returns how many. */
size_t platform_fake_fire_timers(struct platform *platform, uint64_t delay_ms);
