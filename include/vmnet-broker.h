/*
 * libvmnet-broker: networks for virtual machines from vmnet-broker.
 *
 *     vmnet_broker_status_t status;
 *     struct vmnet_broker_network *network = vmnet_broker_acquire_network("shared", &status);
 *     if (!network)
 *         errx(1, "%s", vmnet_broker_strerror(status));
 *
 * Thread rules: a handle belongs to one thread at a time. vmnet_broker_acquire_network() may be
 * called from any thread. The library starts no process and no thread, installs no signal handler
 * and never raises SIGPIPE.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMNET_BROKER_INTERFACE_QUEUES_MAX  8
#define VMNET_BROKER_INTERFACE_SOCKETS_MAX 2

/* What a call came to. The numbers never change; more may be added. */
typedef enum vmnet_broker_status {
	VMNET_BROKER_SUCCESS = 0,
	VMNET_BROKER_CONNECTION_FAILURE = 1, /* no broker, or it went away */
	VMNET_BROKER_INVALID_REPLY = 2,
	VMNET_BROKER_NOT_ALLOWED = 3,
	VMNET_BROKER_INVALID_REQUEST = 4,
	VMNET_BROKER_NOT_FOUND = 5,
	VMNET_BROKER_CREATE_FAILURE = 6, /* Conflict too */
	VMNET_BROKER_INTERNAL_ERROR = 7, /* QuotaExceeded too */
} vmnet_broker_status_t;

/* One line for people; never NULL, "(unknown status)" for numbers this version does not know.
 * Static storage. */
const char *vmnet_broker_strerror(vmnet_broker_status_t status);

/* A network, as the broker described it. All text is NUL-terminated. */
struct vmnet_broker_network {
	char name[64];
	char mode[16];         /* "shared", "host", "bridged" */
	struct in_addr subnet; /* base address */
	struct in_addr mask;
	struct in_addr gateway; /* the host's address on the network */
	uint32_t mtu;           /* bytes */
	char bridge[16];
	char domain[64];
	bool has_ipv6;
	struct in6_addr ipv6_prefix; /* a /64; zero without IPv6 */
	struct in6_addr gateway6;    /* the host's address in it */
	struct in_addr last_address; /* the last of those that VMs get */
	char uplink[16]; /* with mode bridged, where all addresses are zero: the host's interface */
};

/*
 * Acquires a network over a connection that the process shares and keeps for its life: the network
 * stays at least as long as the process. Acquiring it again is cheap and answers afresh. Blocks
 * until the network serves. Returns a description to be freed with free(), or NULL with the reason
 * in *status (may be NULL). A child process that calls it gets a connection of its own.
 */
struct vmnet_broker_network *vmnet_broker_acquire_network(
	const char *network_name, vmnet_broker_status_t *status);

/* A connection of its own. */
typedef struct vmnet_broker vmnet_broker_t;

/*
 * Connects. socket_path NULL: $VMNET_BROKER_SOCKET alone if it is set, otherwise the first that
 * answers of /run/vmnet-broker/socket and $XDG_RUNTIME_DIR/vmnet-broker/socket; the handle stays
 * with that path. On failure returns NULL, *status (may be NULL) is VMNET_BROKER_NOT_ALLOWED where
 * a socket's permissions were in the way and VMNET_BROKER_CONNECTION_FAILURE otherwise, and reason
 * (may be NULL, reason_size bytes) names every path that was tried with its error.
 */
vmnet_broker_t *vmnet_broker_connect(
	const char *socket_path, vmnet_broker_status_t *status, char *reason, size_t reason_size);

/* Lets go of all networks held. NULL is allowed. Interfaces live on in their fds. */
void vmnet_broker_close(vmnet_broker_t *broker);

/*
 * Why the last call on this handle failed, in the broker's own words where it answered; empty after
 * a success. Valid until the next call on the handle.
 */
const char *vmnet_broker_reason(const vmnet_broker_t *broker);

/*
 * Holds a network for the life of the handle. *network (may be NULL) is written on success only.
 * This and the calls below block for at most a minute, after which a silent broker is a
 * VMNET_BROKER_CONNECTION_FAILURE. Over a connection that broke since the last call they first
 * connect and acquire again.
 */
vmnet_broker_status_t vmnet_broker_acquire(
	vmnet_broker_t *broker, const char *network_name, struct vmnet_broker_network *network);

/*
 * A network by what it is, not by its name; zero it first, then set what matters. Without addresses
 * the network named as its mode is meant. With all three it is a network of these addresses: made
 * for its first user, the same for everybody who asks for the same, gone after its last one.
 */
struct vmnet_broker_network_options {
	const char *mode;             /* "shared", "host" or "bridged"; NULL: shared */
	const char *start_address;    /* dotted quad; the host's own, VMs have those behind it */
	const char *end_address;      /* the last one for VMs */
	const char *subnet_mask;      /* such as "255.255.255.0" */
	const char *shared_interface; /* with bridged: the host's interface */
};

/* vmnet_broker_acquire() for the network that fits options; network->name is its name then. */
vmnet_broker_status_t vmnet_broker_acquire_by_options(vmnet_broker_t *broker,
	const struct vmnet_broker_network_options *options, struct vmnet_broker_network *network);

/* What to ask for; zero it first, then set what matters. */
struct vmnet_broker_interface_options {
	const uint8_t *mac;          /* 6 bytes, or NULL */
	const uint8_t *interface_id; /* 16 bytes, or NULL */
	const char *hostname;        /* DNS label, or NULL */
	uint32_t queues;             /* 0 and 1: one plain queue; 2..8: a multi-queue TAP */
	bool vhost;                  /* /dev/vhost-net is wanted, too, where the host has it */
	bool isolation; /* only the host and interfaces that are not isolated reach it */
	int sockets[VMNET_BROKER_INTERFACE_SOCKETS_MAX]; /* AF_UNIX sockets to enlarge; stay the
							    caller's */
	size_t sockets_count;
	/* Which network, where network_name is NULL. */
	const struct vmnet_broker_network_options *network;
	/* For a program that opens a TAP by its name and takes no fd: there are no queues then, the
	 * name is this user's to open, and the interface is held_by_connection. queues and vhost
	 * stay 0 and false. */
	bool named;
};

/* An interface: TAP queues with IFF_NO_PI and IFF_VNET_HDR. */
struct vmnet_broker_interface {
	struct vmnet_broker_network network;
	char name[16];
	uint8_t mac[6];
	uint8_t interface_id[16];
	struct in_addr address;  /* the IPv4 address DHCP will give to this MAC; zero: bridged */
	bool held_by_connection; /* it ends with the handle, not with its fds: keep it open */
	bool locked;             /* frames from another mac or address are dropped */
	uint32_t socket_buffer_bytes;                  /* 0: no sockets given */
	int queues[VMNET_BROKER_INTERFACE_QUEUES_MAX]; /* close-on-exec; the caller's from now on */
	size_t queues_count;
	/* As many of /dev/vhost-net, or none: not asked for, or the host has it not. As queues. */
	int vhosts[VMNET_BROKER_INTERFACE_QUEUES_MAX];
	size_t vhosts_count;
};

/* Attaches a VM to the network of that name, or, with NULL, to options->network. *interface is
 * written on success only; its fds are the caller's to close. options may be NULL. */
vmnet_broker_status_t vmnet_broker_create_interface(vmnet_broker_t *broker,
	const char *network_name, const struct vmnet_broker_interface_options *options,
	struct vmnet_broker_interface *interface);

/* Enlarges the buffers of 1 or 2 AF_UNIX sockets; *bytes (may be NULL): what they became. */
vmnet_broker_status_t vmnet_broker_enlarge_socket_buffers(
	vmnet_broker_t *broker, const int *sockets, size_t sockets_count, uint32_t *bytes);

/*
 * For a program that carries an interface's frames itself, as vmnet-helper does, and counts them:
 * where vmnet-broker asks for what it counted. *listener is a bound, non-blocking SOCK_SEQPACKET
 * socket, close-on-exec, the caller's. Call listen(2) on it; to each connection it accepts send one
 * message, the type Traffic of docs/protocol.md as JSON of at most 512 bytes, and close it. It goes
 * on when the broker is restarted, and needs no handle any more.
 */
vmnet_broker_status_t vmnet_broker_serve_counters(
	vmnet_broker_t *broker, const char *interface_name, int *listener);

/*
 * Calls any method of org.vmnet.Broker, such as "ListNetworks", that takes no fds;
 * docs/protocol.md says which there are. parameters is a JSON object as text, NULL: none. *reply
 * (may be NULL) is what the method answers, a JSON object as text, to be freed with free().
 * parameters that are no JSON object are a VMNET_BROKER_INVALID_REQUEST.
 */
vmnet_broker_status_t vmnet_broker_call(
	vmnet_broker_t *broker, const char *method, const char *parameters, char **reply);

/*
 * The same for a method that answers with fds, too. The first *fds_count of them, which is how many
 * fds has room for, are the caller's from then on, close-on-exec; *fds_count becomes how many there
 * are. Others are closed.
 */
vmnet_broker_status_t vmnet_broker_call_with_fds(vmnet_broker_t *broker, const char *method,
	const char *parameters, char **reply, int *fds, size_t *fds_count);

/*
 * Calls a method that has many answers, such as "Monitor" (varlink's "more").
 * vmnet_broker_next_reply() waits for one of them, as long as it takes; *more (may be NULL) says
 * whether another one follows. Until there is none, or a failure, no other call may be made on the
 * handle: close it to end the answers early. A VMNET_BROKER_CONNECTION_FAILURE means that the
 * broker is gone; the method can be called again, and vmnet_broker_dispatch() says when.
 */
vmnet_broker_status_t vmnet_broker_call_for_more(
	vmnet_broker_t *broker, const char *method, const char *parameters);
vmnet_broker_status_t vmnet_broker_next_reply(vmnet_broker_t *broker, char **reply, bool *more);

/*
 * For programs with an event loop that hold networks for long. The fd (the handle's, the same for
 * its life) becomes readable when the connection needs care; then call vmnet_broker_dispatch(),
 * which never waits: when the broker went away it connects and acquires every held network again,
 * now or, with the fd readable again, later. Returns VMNET_BROKER_SUCCESS while every network is
 * held, VMNET_BROKER_CONNECTION_FAILURE while it is still trying.
 */
int vmnet_broker_get_fd(const vmnet_broker_t *broker);
vmnet_broker_status_t vmnet_broker_dispatch(vmnet_broker_t *broker);

#ifdef __cplusplus
}
#endif
