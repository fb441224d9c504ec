/*
 * The broker's platform seam: everything the registry wants from the system under it. One .c family
 * per system, chosen by meson (platform-linux.c and its neighbours), and platform-fake.c, with
 * which the registry runs in unit tests without any privilege.
 *
 * Calls return 0 or negative errno; those with a detail fill it (PLATFORM_DETAIL_SIZE bytes) with
 * what failed when they fail. They may block shortly, on the privileged part and never on a peer.
 * Events are called from the loop only, never from inside a call.
 */
#pragma once

#include "broker/subnet.h"
#include "priv/names.h"
#include "wire/forward-spec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PLATFORM_DETAIL_SIZE    160
#define PLATFORM_RESOLVERS_SIZE 16384
#define PLATFORM_QUEUES_MAX     8
#define PLATFORM_COMMENT_SIZE   128

struct platform;

/* A network as the kernel has it. */
struct platform_network {
	char name[NETWORK_NAME_SIZE];
	enum network_mode mode;
	struct ipv4_subnet subnet;
	uint32_t gateway_offset; /* of the host's own address; 0 when creating: the first host */
	bool has_ipv6;
	struct in6_addr ipv6_prefix; /* a /64; the host is its ::1 */
	uint32_t mtu;
	char uplink[IFNAMSIZ]; /* the only link to the world; empty for any */
	char bridge[IFNAMSIZ];
};

/* What a network's DHCP and DNS server does. */
struct platform_service {
	bool dhcp, dns, router_advertisement;
	uint32_t lease_s;
	uint32_t last_offset;             /* of the addresses for VMs; 0: the last host */
	char domain[NETWORK_DOMAIN_SIZE]; /* empty: NETWORK.vmnet */
};

/* How an interface is made. */
struct platform_port {
	uint32_t number;
	uint32_t queues; /* 1 to PLATFORM_QUEUES_MAX */
	bool isolated;   /* reaches the host and interfaces that are not isolated */
	/* No fd of it is handed out: owner opens it by its name. queues is 1. */
	bool named;
	uid_t owner;
	/* Sends from mac and address only. */
	bool locked;
	struct mac mac;
	struct in_addr address;
	const char
		*uplink; /* a link of the host to be put on instead of the network's; NULL: none */
};

/* An interface as the kernel has it. */
struct platform_interface {
	uint32_t number;
	char network[NETWORK_NAME_SIZE];
	bool isolated, locked; /* as in struct platform_port */
	bool named;            /* as in struct platform_port */
	bool is_leased;        /* it stays until it is revoked */
	struct mac mac;        /* the VM's, of one that is leased and not named */
	const char *tampering; /* what its holder did to it ("its address was changed"), or NULL */
};

/* One port of the host that leads to a VM. */
struct platform_forward {
	uint8_t protocol;       /* IPPROTO_TCP or IPPROTO_UDP */
	struct endpoint listen; /* on the host */
	struct endpoint target; /* the VM's address, of the same family */
	int error; /* negative errno that platform_apply_forwards() met with it; else 0 */
};

/* A program of the host that takes packets at an endpoint. */
struct platform_listener {
	struct endpoint endpoint;
	uid_t uid;
};

/* What happens without being asked for. */
struct platform_events {
	/* The holder of an interface did what only an attacker does: take it away. */
	void (*interface_tampered)(void *context, uint32_t number, const char *tampering);
	/* The last holder closed it, or it was revoked. */
	void (*interface_gone)(void *context, uint32_t number);
	/* The process of platform_watch_process() has ended. */
	void (*process_ended)(void *context, uint32_t number);
	/* Somebody else removed a network's bridge. */
	void (*network_gone)(void *context, const char *network);
	/* The guard's rules have gone, or what keeps ports may have; reason NULL: only rules of
	 * interfaces that have gone are in them. */
	void (*guard_stale)(void *context, const char *reason);
	/* The NAT rules have gone, or the host's routes are others now. */
	void (*nat_stale)(void *context, const char *reason);
	/* The host has other addresses or routes than before. */
	void (*uses_changed)(void *context);
	/* firewalld does not let a bridge through, in its own words. */
	void (*firewalld_refused)(void *context, const char *bridge, const char *reason);
	/* The rules of forwards have gone. */
	void (*forwards_stale)(void *context, const char *reason);
	/* The host's name servers may be others now. */
	void (*resolvers_changed)(void *context);
	/* The host's resolver does not take a network's names, in its own words. */
	void (*names_refused)(void *context, const char *network, const char *reason);
	/* A line of the network's DHCP and DNS server. */
	void (*dhcp_line)(void *context, const char *network, const char *line);
	/* That server has ended. */
	void (*dhcp_ended)(void *context, const char *network);
};

/* From now on events go there; the table stays the caller's. Before, they are lost. */
void platform_set_events(
	struct platform *platform, const struct platform_events *events, void *context);

/* Visits what there is of ours: networks first. Called once, before the loop. */
struct platform_visitor {
	/* A subnet with prefix length 0 is a bridge that was never finished. */
	void (*network)(void *context, const struct platform_network *network);
	void (*interface)(void *context, const struct platform_interface *interface);
};
int platform_visit_links(
	struct platform *platform, const struct platform_visitor *visitor, void *context);

/* Adds every address and route of the host to uses. */
int platform_list_uses(struct platform *platform, struct subnet_uses *uses);

/*
 * Makes the bridge and fills in network->bridge. -EADDRINUSE: the subnet is taken; -EADDRNOTAVAIL:
 * the IPv6 prefix is. -EAFNOSUPPORT: the system has no IPv6.
 */
int platform_create_network(
	struct platform *platform, struct platform_network *network, char *detail);

/* Removes the bridge and its DHCP server. Not being there is no error. */
int platform_destroy_network(struct platform *platform, const char *network, char *detail);

/*
 * Makes an interface. ret_fds are the caller's, one a queue; its life is theirs. -EEXIST: the
 * number is in use. 1: it leaves no other way but to revoke it: it was made on a link that is so,
 * or is a named one, of which there are no fds.
 */
int platform_attach(struct platform *platform, const char *network,
	const struct platform_port *port, int ret_fds[PLATFORM_QUEUES_MAX], char *detail);

/*
 * Opens the host's packet mover for virtio-net, which only a privileged process may, count (1 to
 * PLATFORM_QUEUES_MAX) times. ret_fds are the caller's. Negative errno where there is none.
 */
int platform_open_vhosts(
	struct platform *platform, uint32_t count, int ret_fds[PLATFORM_QUEUES_MAX], char *detail);

/* The MTU of a link of the host. -ENODEV: there is none of that name. */
int platform_read_uplink(struct platform *platform, const char *name, uint32_t *ret_mtu);

/* A process, known again by a later broker. */
struct platform_process {
	pid_t pid;
	uint64_t id; /* of no other process since; 0: this system has no such thing */
};

/* -ESRCH: there is none, or none that this process can see. */
int platform_identify_process(
	struct platform *platform, pid_t pid, struct platform_process *ret_process);

/* Whether a process can open interfaces by their names: false for one that is in another network
 * namespace, or may be, than the networks of an ordinary user's broker. */
bool platform_shows_names(struct platform *platform, pid_t pid);

/* process_ended for the interface follows once, at its end. -ESRCH: it has ended already. */
int platform_watch_process(
	struct platform *platform, uint32_t number, const struct platform_process *process);

/* No process_ended follows any more. */
void platform_unwatch_process(struct platform *platform, uint32_t number);

/* Frames of one direction, as the system counted them since the interface was made. */
struct platform_counters {
	uint64_t packets; /* one that is larger than the MTU, to be cut later, is one */
	uint64_t bytes;
	uint64_t drops; /* no room in a queue, and frames that were none */
};

/* Calls found for every interface of ours that is there now. */
typedef void platform_traffic_found(void *context, uint32_t number,
	const struct platform_counters *host_to_vm, const struct platform_counters *vm_to_host);
int platform_count_traffic(struct platform *platform, platform_traffic_found *found, void *context);

/* Takes an interface away from its holder. interface_gone follows. */
int platform_revoke(struct platform *platform, uint32_t number, char *detail);

/* How an interface is called on this system, into name (IFNAMSIZ bytes). */
void platform_interface_name(uint32_t number, char name[IFNAMSIZ]);

/*
 * Makes the buffers of AF_UNIX sockets, which stay the caller's, bytes large. *ret_bytes is what
 * the smallest became. -EINVAL: one of them is no AF_UNIX socket.
 */
int platform_force_buffers(struct platform *platform, const int *sockets, size_t count,
	uint32_t bytes, uint32_t *ret_bytes, char *detail);

/* Makes the rules for what VMs may send, and what keeps their ports, what the interfaces in the
 * kernel ask for. Networks and interfaces are made with theirs. */
int platform_apply_guard(struct platform *platform, char *detail);

/* Makes the NAT rules what the networks in the kernel ask for. */
int platform_apply_nat(struct platform *platform, char *detail);

/*
 * Who listens on a UDP or TCP port of every address of the host, so that nobody else can, in words
 * for people, into text (PLATFORM_DETAIL_SIZE bytes). False: nobody does. An ordinary user sees
 * which servers run, not whose a socket is: with several of them it is one that might be it.
 */
bool platform_find_port_holder(struct platform *platform, uint16_t port, char *text);

/*
 * Makes the forwards that the kernel has just these: at most one an endpoint that is listened on.
 * ends_flows: UDP flows that would be led elsewhere, were they to begin now, end. Returns how many
 * have a rule, or negative errno. One whose target is in none of our networks has none; where it is
 * for another reason, its error is set, and detail says of the first why, and how to mend it.
 */
int platform_apply_forwards(struct platform *platform, struct platform_forward *forwards,
	size_t count, bool ends_flows, char *detail);

/* Looks for a program of the host that takes packets for endpoint, too. Returns 1 when there is
 * one, 0 when none is known. */
int platform_find_listener(struct platform *platform, uint8_t protocol,
	const struct endpoint *endpoint, struct platform_listener *ret_listener);

/* The first port that programs without privilege may listen on. */
uint32_t platform_first_unprivileged_port(struct platform *platform);

/* What is captured, and until when. */
struct platform_capture {
	const char *network;
	bool until_network; /* as long as its bridge is there; else as long as an interface added */
	uint32_t snaplen;   /* bytes of a packet that are kept */
	uint32_t count;     /* packets; 0: any number */
};

/*
 * Starts a capture that hears of no interface yet. *ret_stream is the caller's; pcapng can be read
 * from it, and the capture ends with its last copy. -ENOSPC: there are too many.
 */
int platform_start_capture(struct platform *platform, const struct platform_capture *wanted,
	uint32_t *ret_number, int *ret_stream, char *detail);

/* Adds an interface of the capture's network. comment is printable ASCII, PLATFORM_COMMENT_SIZE
 * bytes at most. -ESRCH: the capture has ended. -ENOENT: the interface has. */
int platform_capture_interface(struct platform *platform, uint32_t capture, uint32_t number,
	const char *comment, char *detail);

/* Has it write what belongs to the end, and end. One that has ended is allowed. */
void platform_end_capture(struct platform *platform, uint32_t capture);

/* Starts the network's DHCP and DNS server. Returns 1 when it served already, 0 when it has just
 * been started and will say so in a line. */
int platform_start_dhcp(struct platform *platform, const char *network,
	const struct platform_service *service, char *detail);

/* Ends it; no dhcp_ended follows. Not running is no error. */
int platform_stop_dhcp(struct platform *platform, const char *network, char *detail);

/* Has it read its hosts file again. It must have said that it serves. */
int platform_reload_dhcp(struct platform *platform, const char *network);

/*
 * The host's resolv.conf(5), the beginning of a longer one. Negative errno: it is not there, or may
 * not be read.
 */
int platform_read_resolvers(
	struct platform *platform, char ret_text[PLATFORM_RESOLVERS_SIZE], size_t *ret_size);

/*
 * Has the host's own programs find the names of a network, which runs, in its domain: the host's
 * resolver is told that the gateway knows them, where there is one that takes this, and again
 * whenever it starts. Ends with the network's bridge. Nothing waits for it.
 */
int platform_announce_names(
	struct platform *platform, const struct platform_network *network, const char *domain);

/* Something of the host that keeps VMs from the network. */
struct platform_problem {
	const char *problem; /* a word for programs */
	const char *text;    /* what is wrong */
	const char *mend;    /* the one command that mends it */
	bool is_note;        /* nothing is wrong, but who wants more has to do this first */
};

/* What it gets lives as long as the call. */
typedef void platform_problem_found(void *context, const struct platform_problem *problem);

/*
 * Looks at the host, now, and calls found for each problem. accept gets each rule of ours in other
 * firewalls, "ip filter FORWARD: vmbr12345678 out". has_networks: whether any network runs, and is
 * therefore to be let through. Negative errno when the privileged part could not look.
 */
int platform_find_problems(struct platform *platform, bool has_networks,
	platform_problem_found *found, void (*accept)(void *context, const char *rule),
	void *context);

/* A timer that calls back once a start, from the loop. */
struct platform_timer;
typedef void platform_timer_callback(void *context);
int platform_timer_new(struct platform *platform, platform_timer_callback *callback, void *context,
	struct platform_timer **ret_timer);
/* Starts it (anew). */
void platform_timer_start(struct platform_timer *timer, uint64_t delay_ms);
void platform_timer_stop(struct platform_timer *timer);
/* NULL is allowed. */
void platform_timer_free(struct platform_timer *timer);

/* Unpredictable bytes. */
void platform_randomize(struct platform *platform, void *bytes, size_t size);
