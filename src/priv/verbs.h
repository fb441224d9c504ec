/*
 * The verbs: everything the front can ask of priv, as fixed-size structs over a SOCK_SEQPACKET
 * pair.
 *
 * One request, one reply, in order; the reply carries the request's sequence. priv believes
 * nothing: each argument is validated again, links must carry our tag, sockets must be what they
 * should be. A request that is malformed, unknown or out of order gets a reply with -EBADMSG,
 * -EOPNOTSUPP or -EINVAL; nothing is changed then. At most VERB_BURST requests a second are served
 * without delay; a flood only slows its sender down.
 *
 * The mode, subnet and members of each network are read back from the kernel (bridge alias and
 * address), never taken from the front, wherever a verb acts on an existing network.
 */
#pragma once

#include "base/text.h"
#include "priv/names.h"

#include <assert.h>
#include <stdint.h>

#define VERB_MAGIC        0x766d6e31u /* "vmn1" */
#define VERB_BURST        2000
#define VERB_QUEUES_MAX   8
#define VERB_SOCKETS_MAX  2
#define VERB_BUFFER_MAX   (8u << 20) /* largest socket buffer forced, bytes */
#define VERB_MTU_MIN      1280
#define VERB_MTU_MAX      65520
#define VERB_LEASE_MIN_S  120
#define VERB_LEASE_MAX_S  86400
#define VERB_FORWARDS_MAX 1024
#define VERB_IS_MACVTAP   1 /* a result */
#define VERB_DETAIL_SIZE  108
#define VERB_RUNS_ALREADY 1 /* a result */

enum verb {
	/* Bridge with address, fixed MAC, no forwarding delay, up. Reply: ifindex. -EEXIST: there
	 * is one already. -EADDRINUSE: the subnet overlaps an address or route of the host;
	 * -EADDRNOTAVAIL: the IPv6 prefix does. -EAFNOSUPPORT: the host has no IPv6. */
	VERB_CREATE_BRIDGE,
	/* -ENOENT: none of ours. -EBUSY: an interface of ours is on it. */
	VERB_DELETE_BRIDGE,
	/* TAP with vnet_hdr on the network's bridge, owner root, not persistent, up, its port kept
	 * as asked for before that. Reply: ifindex; fds: one a queue. -EEXIST: the number is in
	 * use. -ENOENT: no such network. With an uplink: result VERB_IS_MACVTAP where it is no TAP,
	 * whose link then stays until it is deleted, as a named TAP does, of which there are no
	 * fds. */
	VERB_CREATE_TAP,
	/* By number; only ours, macvtap links too. -ENOENT: none of ours has it. */
	VERB_DELETE_TAP,
	/* Makes the nft table, forwarding on bridges and uplinks, and our accepts in chains of
	 * others that drop, what the tagged bridges in the kernel ask for; removes table and
	 * accepts when no bridge is left. */
	VERB_APPLY_NAT,
	/* Starts the network's dnsmasq if none runs, else the result is VERB_RUNS_ALREADY. Reply:
	 * pid; fds: pidfd, and the read end of its log (it is serving once it logged a line that
	 * contains "started, version"). */
	VERB_START_DNSMASQ,
	/* Ends it and waits until it is gone. -ESRCH: none runs. */
	VERB_STOP_DNSMASQ,
	/* Forces SO_SNDBUF and SO_RCVBUF of the request's fds: AF_UNIX sockets only, capped at
	 * VERB_BUFFER_MAX. A buffer that is larger already stays. Reply: the smallest SO_SNDBUF
	 * now, as getsockopt(2) tells it (twice what was asked: the kernel counts its bookkeeping).
	 */
	VERB_FORCE_BUFFERS,
	/* Reply fd: a netlink socket bound to NFNLGRP_NFTABLES, which an unprivileged process may
	 * read but not bind. */
	VERB_OPEN_NFT_EVENTS,
	/* Does nothing. Its reply says that all before it is over, priv's copies of passed fds
	 * closed included: without it a VM that ends at once would leave its TAP in the way of its
	 * next start. */
	VERB_SETTLE,
	/* Reply fds: as many of /dev/vhost-net as asked for. What open(2) says, or -ENODEV, when
	 * the host has none. */
	VERB_OPEN_VHOST,
	/* Reply fd: a memory file with what the host's firewalls look like, in lines that foreign.h
	 * describes. */
	VERB_REPORT_FIREWALLS,
	/* Makes the nft table of forwards what the request's fd says, a sealed memory file with an
	 * array of struct verb_forward; removes it when there are none. Reply: how many have a
	 * rule; one whose target is in none of our networks has none. */
	VERB_APPLY_FORWARDS,
	/* Makes the rules for what VMs may send, and the ports of locked TAPs, what the tagged
	 * links in the kernel ask for. Bridges and TAPs are made with theirs; this is for what
	 * others, or a holder of a TAP's fd, did to them, and takes away rules for TAPs that have
	 * gone. */
	VERB_APPLY_GUARD,
	/* Reply: the instance, whose links these are. For a front that priv did not start. */
	VERB_GET_INSTANCE,
	/* Reply fd: a bound NETLINK_ROUTE socket to the network namespace of the networks, for a
	 * front that is in another one. */
	VERB_OPEN_ROUTE_SOCKET,
	/* Starts the process of a capture, which hears of nothing yet. Reply: its number; fd: the
	 * end of a stream socket that it writes pcapng to. It ends with the last copy of that, with
	 * the network's bridge or its last interface, and with this connection of the front; shut
	 * down for sending it makes the process write what belongs to the end. -ENOENT: the network
	 * has no bridge. -ENOSPC: too many run. */
	VERB_START_CAPTURE,
	/* Adds an interface to a capture of its network. -ENOENT: none of ours has that number.
	 * -ESRCH: no such capture, or of another network. */
	VERB_CAPTURE_INTERFACE,
	/* As if its reader had said so. -ESRCH: no such capture. */
	VERB_END_CAPTURE,
	VERB_COUNT,
};

struct verb_create_bridge {
	char network[NETWORK_NAME_SIZE];
	uint8_t mode; /* enum network_mode */
	uint8_t prefix_length;
	uint8_t has_ipv6;
	uint32_t subnet_address; /* network byte order */
	uint32_t gateway_offset; /* from subnet_address; 0: the first host */
	uint32_t mtu;
	uint8_t ipv6_prefix[IPV6_PREFIX_SIZE]; /* of has_ipv6: a ULA /64 (RFC 4193) */
	char uplink[IFNAMSIZ];                 /* the only link to the world; empty for any */
};

/* What START_DNSMASQ's dnsmasq does. */
enum verb_service {
	VERB_SERVICE_DHCP = 1 << 0,
	VERB_SERVICE_DNS = 1 << 1,
	VERB_SERVICE_ROUTER_ADVERTISEMENT = 1 << 2,
	VERB_SERVICE_ALL = (1 << 3) - 1,
};

struct verb_start_dnsmasq {
	char network[NETWORK_NAME_SIZE];
	char domain[NETWORK_DOMAIN_SIZE]; /* empty: NETWORK.vmnet */
	uint32_t services;                /* bits of enum verb_service */
	uint32_t lease_s;
	uint32_t last_offset; /* of the addresses for VMs; 0: the last host */
};

/* How a TAP's port on the bridge is kept. */
enum verb_port {
	VERB_PORT_ISOLATED = 1 << 0, /* reaches the host and ports that are not isolated */
	VERB_PORT_LOCKED = 1 << 1,   /* sends from the given MAC and IPv4 address only */
	VERB_PORT_NAMED = 1 << 2,    /* the TAP is persistent, for owner to open by its name */
	VERB_PORT_ALL = (1 << 3) - 1,
};

struct verb_network {
	char network[NETWORK_NAME_SIZE];
};

struct verb_create_tap {
	char network[NETWORK_NAME_SIZE];
	uint32_t number;
	/* Empty: on the network's own bridge. Else a link of the host that is not ours: a bridge,
	   of which the TAP becomes a port; or another, on which a macvtap link with mac is made
	   instead. */
	char uplink[IFNAMSIZ];
	uint32_t queues;       /* 1..VERB_QUEUES_MAX; more than one makes it a multi-queue TAP */
	uint32_t port;         /* bits of enum verb_port */
	uint32_t address;      /* of VERB_PORT_LOCKED: the VM's IPv4, network byte order */
	uint8_t mac[MAC_SIZE]; /* of VERB_PORT_LOCKED: the VM's */
	uint32_t owner;        /* of VERB_PORT_NAMED, which takes one queue: a uid */
};

struct verb_delete_tap {
	uint32_t number;
};

struct verb_open_vhost {
	uint32_t count; /* 1..VERB_QUEUES_MAX */
};

struct verb_force_buffers {
	uint32_t bytes;
};

#define VERB_SNAPLEN_MIN     64
#define VERB_SNAPLEN_MAX     262144
#define VERB_CAPTURE_COMMENT 128

/* When a capture ends by itself. */
enum verb_capture_end {
	VERB_CAPTURE_UNTIL_NETWORK,   /* with the network's bridge */
	VERB_CAPTURE_UNTIL_INTERFACE, /* with the last of the interfaces added */
	VERB_CAPTURE_END_COUNT,       /* how many there are */
};

struct verb_start_capture {
	char network[NETWORK_NAME_SIZE];
	uint32_t end;     /* enum verb_capture_end */
	uint32_t snaplen; /* bytes of a packet that are kept */
	uint32_t count;   /* packets; 0: any number */
};

struct verb_capture_interface {
	uint32_t capture; /* its number */
	uint32_t number;  /* the interface's */
	/* Of its description: printable ASCII; may be empty. */
	char comment[VERB_CAPTURE_COMMENT];
};

struct verb_end_capture {
	uint32_t capture;
};

struct verb_apply_forwards {
	uint32_t count;      /* 0..VERB_FORWARDS_MAX */
	uint32_t ends_flows; /* not 0: UDP flows that would not be made so anew end */
};

/* One port of the host that leads to a VM. Addresses in network byte order, IPv4 in the first 4
 * bytes and zeros behind; ports in the host's. */
struct verb_forward {
	uint8_t is_ipv6;  /* 0 or 1: both addresses */
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint16_t listen_port;
	uint16_t target_port;
	uint8_t listen[16]; /* one of the host's addresses; zeros: every one */
	uint8_t target[16]; /* the VM's */
};
static_assert(sizeof(struct verb_forward) == 38, "records of one size without padding");

struct verb_request {
	uint32_t magic;
	uint32_t verb;
	uint32_t sequence;
	union {
		struct verb_create_bridge create_bridge;
		struct verb_start_dnsmasq start_dnsmasq;
		struct verb_network network; /* DELETE_BRIDGE, STOP_DNSMASQ */
		struct verb_create_tap create_tap;
		struct verb_delete_tap delete_tap;
		struct verb_force_buffers force_buffers;
		struct verb_open_vhost open_vhost;
		struct verb_apply_forwards apply_forwards;
		struct verb_start_capture start_capture;
		struct verb_capture_interface capture_interface;
		struct verb_end_capture end_capture;
		uint8_t bytes[244];
	};
};
static_assert(sizeof(struct verb_request) == 256, "a request has one size, whatever the verb");

struct verb_reply {
	uint32_t magic;
	uint32_t verb;
	uint32_t sequence;
	int32_t result;                /* 0, VERB_RUNS_ALREADY or negative errno */
	uint32_t value;                /* ifindex or pid, see enum verb */
	char detail[VERB_DETAIL_SIZE]; /* what failed, for the log and the error a person sees;
					  always NUL-terminated */
};
static_assert(sizeof(struct verb_reply) == 128, "a reply has one size");
