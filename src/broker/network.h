/*
 * The registry of networks: which exist, who uses them, when they go. No system calls here: all
 * goes through platform.h and records.h.
 *
 * A network is used by its interfaces and by its holds. A hold is a connection's; it waits while
 * the network comes up and is granted when its DHCP and DNS serve.
 */
#pragma once

#include "broker/config.h"
#include "broker/credentials.h"
#include "broker/dhcp.h"
#include "broker/failure.h"
#include "broker/records.h"

/* An entry without a network goes so soon; not at once, for call-backs of its own may be under way.
 */
#define REGISTRY_FORGET_MS 1

struct network;
struct interface;
struct forwards;
struct event_listener;
struct capture;

enum network_state {
	/* No bridge. Leaves by network_acquire() and by adoption. */
	NETWORK_ABSENT,
	/* Bridge and NAT are there, dnsmasq does not serve yet, holds wait. Leaves by dnsmasq's
	   readiness, or back to ABSENT by its failure. */
	NETWORK_STARTING,
	/* Has users, or is pinned. Leaves when the last one goes. dnsmasq may be down for a while;
	   new holds wait then. */
	NETWORK_RUNNING,
	/* Has no users and is not pinned; the idle timer runs. Leaves by a user, or by the timer.
	 */
	NETWORK_LINGERING,
	NETWORK_STATE_COUNT,
};

/*
 * Called once for a hold that had to wait, never from inside network_acquire(): failure is NULL
 * when it was granted. After a failure the hold keeps nothing, and is still its owner's to release.
 */
typedef void network_hold_done(void *context, const struct failure *failure);

struct network_hold {
	struct network *network; /* NULL once it has failed */
	struct network_hold *next;
	bool granted;
	network_hold_done *done;
	void *context;
};

struct registry {
	struct platform *platform;
	struct records *records;
	struct config *config;
	uint32_t instance;
	uint64_t idle_timeout_ms;
	/* After a network came or went; may be NULL. */
	void (*changed)(void *context);
	void *context;
	bool lacks_ipv6;                     /* the host does, which was logged */
	struct forwards *forwards;           /* the caller's; may be NULL */
	struct network *networks;            /* sorted by name */
	struct platform_timer *forget_timer; /* until entries that nothing keeps are forgotten */
	bool forgets_soon;                   /* it runs */
	struct platform_timer *pin_timer;    /* until pinned networks are tried again */
	bool nat_is_due;                     /* network-nat.c's */
	struct platform_timer *nat_timer;
	struct rate_limit interface_lines;
	struct event_listener *listeners;   /* events.c's */
	struct platform_timer *drops_timer; /* drops.c's; NULL: nobody listened yet */
	size_t drops_listeners;
	uint32_t drops_round;         /* 0 is none */
	struct capture *captures;     /* capture.c's */
	uint64_t captures_free_at_ms; /* policy.c's, of policy_pace_capture() */
	struct rate_limit diagnoses;  /* each reads all of the host's firewalls */
	bool is_rootless;             /* its networks are in namespaces of an ordinary user */
	bool is_stopping; /* the broker ends: what is leased to connections stays for the next */
};

/* The fields belong to network.c; interface.c keeps the list of interfaces. */
struct network {
	struct registry *registry;
	struct network *next;
	char name[NETWORK_NAME_SIZE];
	char tag[NETWORK_NAME_SIZE + sizeof("network ")]; /* for the log */
	const struct config_network *config;              /* NULL: not configured (any more) */
	enum network_state state;
	struct platform_network link; /* valid unless ABSENT */
	/* What it runs with, whatever the configuration says by now; valid unless ABSENT. */
	struct network_settings settings;
	uid_t uid; /* who had it made */
	struct network_memory memory;
	bool memory_is_unsaved; /* its record could not be written */
	struct dhcp dhcp;
	struct platform_timer *idle_timer;
	struct network_hold *holds;
	struct interface *interfaces;
	char *hosts, *names, *resolvers; /* what dnsmasq's files say; NULL: not written yet */
	bool overlap_told;               /* of what network-obstacles.h warns of */
	struct failure last_failure;
};

/*
 * Makes the registry of the configured networks, all ABSENT, and takes the platform's events. All
 * pointers of *registry but networks and timers are set by the caller and outlive it.
 * Negative errno, after which registry_done() is still due.
 */
int registry_init(struct registry *registry);

/* Frees everything; networks in the kernel stay. Every hold must have been released. */
void registry_done(struct registry *registry);

/* Reads back what the kernel has of ours and goes on with it: once, before the loop. */
int registry_adopt(struct registry *registry);

/* Before the end: removes the networks without an interface, now. Holds end with us. */
void registry_stop(struct registry *registry);

/* True when no network exists. */
bool registry_is_empty(const struct registry *registry);

/*
 * Adds the entry of a network, ABSENT; config NULL: it is not configured, and forgotten once it is
 * ABSENT again. -ENOMEM.
 */
int registry_add(struct registry *registry, const char *name, const struct config_network *config,
	struct network **ret_network);

/* "absent", "starting", "running", "lingering". Static storage. */
const char *network_state_to_text(enum network_state state);

/* Frees an entry that is in no list any more. */
void network_free(struct network *network);

/* Any entry, those of networks that are neither configured nor there too. NULL: none. */
struct network *registry_find_entry(const struct registry *registry, const char *name);

/* The network with that name, configured or running; NULL when there is none. */
struct network *registry_find(const struct registry *registry, const char *name);

/* Says which networks there are for user instead of name. -ECANCELED. */
int registry_fail_unknown(const struct registry *registry, const char *name,
	const struct credentials *user, struct failure *failure);

/* True when a network has a bridge of its own. */
bool registry_has_bridges(const struct registry *registry);

/* Applies the rules for what VMs may send again, if there is a TAP. */
void registry_apply_guard(struct registry *registry, const char *reason);

/* The same after adoption; what is left of earlier networks goes. */
void registry_restore_guard(struct registry *registry);

/* Applies the NAT rules again, if there is a network. */
void registry_apply_nat(struct registry *registry, const char *reason);

/*
 * Holds a network for user, and makes it first if need be. Returns 1 when the hold was granted at
 * once, 0 when it waits for done, -ECANCELED with *failure filled in. The hold is the caller's
 * to release.
 */
int network_acquire(struct registry *registry, const char *name, const struct credentials *user,
	network_hold_done *done, void *context, struct network_hold **ret_hold,
	struct failure *failure);

/* Ends a hold, waiting ones too. NULL is allowed. */
void network_release(struct network_hold *hold);

/* What peers are told of it. */
void network_describe(const struct network *network, struct broker_network *ret_network);

/* Its DNS domain: the one configured, or the one that follows from its name. */
void network_get_domain(const struct network *network, char domain[NETWORK_DOMAIN_SIZE]);

/* Its users are others now: it starts to linger, or stops doing so. */
void network_settle(struct network *network);

/* Writes what outlives it. Negative errno. */
int network_save_memory(struct network *network);

/* Writes what dnsmasq reads, when that says something new, and tells it. Negative errno. */
int network_write_hosts(struct network *network);
