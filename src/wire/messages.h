/*
 * Every message of org.vmnet.Broker, encoded and decoded in one place; both ends use it, so they
 * cannot drift. Pure. docs/protocol.md is the contract; org.vmnet.Broker.varlink, which the server
 * serves, is its formal half.
 *
 * Encoders return a new reference, or NULL when memory is out or a text in the struct is no UTF-8.
 * Decoders of calls take NULL for parameters left out, and return -EINVAL and a text a person can
 * act on (names the parameter and what is allowed) in reason (BROKER_REASON_SIZE bytes). Unknown
 * parameters are an error there: a misspelt option must not be ignored. Decoders of answers return
 * -EBADMSG and let unknown members pass: a newer broker may say more.
 */
#pragma once

#include "wire/forward-spec.h"
#include "wire/network-choice.h"

#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define BROKER_INTERFACE        "org.vmnet.Broker"
#define VARLINK_SERVICE         "org.varlink.service"
#define BROKER_REASON_SIZE      512
#define BROKER_DESCRIPTION_SIZE 256
#define BROKER_QUEUES_MAX       8
#define BROKER_SOCKETS_MAX      2

/* The errors of org.vmnet.Broker. Each carries {"reason": text}. */
enum broker_error {
	BROKER_ERROR_NOT_FOUND,
	BROKER_ERROR_NOT_ALLOWED,
	BROKER_ERROR_INVALID_REQUEST,
	BROKER_ERROR_CREATE_FAILURE,
	BROKER_ERROR_INTERNAL,
	BROKER_ERROR_QUOTA_EXCEEDED,
	BROKER_ERROR_CONFLICT,
	BROKER_ERROR_COUNT,
};

/* "org.vmnet.Broker.NotFound" and so on. Static storage. */
const char *broker_error_name(enum broker_error error);
/* -EINVAL for a name that is none of ours. */
int broker_error_from_name(const char *name, enum broker_error *ret_error);
/*
 * {"error": name, "parameters": {"reason": reason}}. Bytes of reason that are no UTF-8 become '?':
 * an error must reach its reader. NULL when memory is out.
 */
json_t *broker_error_encode(enum broker_error error, const char *reason);
/* The reason in an error's parameters, cut to BROKER_REASON_SIZE; empty when there is none. */
void broker_error_decode(json_t *parameters, char *reason);

/* What a network is, as AcquireNetwork and ListNetworks tell it. */
struct broker_network {
	char name[NETWORK_NAME_SIZE];
	char mode[16];               /* "shared", "host" */
	struct ipv4_subnet subnet;   /* prefix_length 0 while a listed network has none yet */
	struct in_addr gateway;      /* the host's address on it */
	struct in_addr last_address; /* of those that VMs get; zero: as subnet */
	char uplink[16];             /* of mode bridged: the host's interface; else empty */
	bool has_ipv6;
	struct in6_addr ipv6_prefix; /* a /64; the host is its ::1 */
	uint32_t mtu;
	char bridge[16]; /* the bridge's link name; empty while it does not run */
	char domain[NETWORK_NAME_SIZE + 8];        /* "shared.vmnet" */
	char description[BROKER_DESCRIPTION_SIZE]; /* for people; may be empty */
	bool running;
};

/* AcquireNetwork(network, ...), also EnlargeSocketBuffers' sibling.
 */
struct acquire_network_call {
	struct network_choice wanted;
};

/* CreateInterface: everything but the network is optional. */
struct create_interface_call {
	struct network_choice wanted;
	bool has_mac;
	struct mac mac;
	bool has_interface_id;
	struct uuid interface_id;
	char hostname[HOSTNAME_SIZE]; /* empty: none */
	uint32_t queues;              /* 0: not said, means one queue without IFF_MULTI_QUEUE */
	bool vhost;                   /* fds of /dev/vhost-net are wanted */
	bool isolation;               /* it shall not reach other isolated interfaces */
	bool named;                   /* no fds: its TAP is opened by name; one queue, no vhost */
	uint32_t sockets_count;
	uint32_t sockets[BROKER_SOCKETS_MAX]; /* indexes of the message's fds */
};

/* Its answer. fds of the message are the TAP's queues and, if there are any, as many of
 * /dev/vhost-net. */
struct created_interface {
	struct broker_network network;
	char interface_name[16];
	struct mac mac;
	struct uuid interface_id;
	struct in_addr address;  /* the IPv4 reserved for this MAC; zero: none */
	bool held_by_connection; /* it ends with the connection */
	bool locked;             /* it sends from mac and address only */
	uint32_t queues_count;
	uint32_t queues[BROKER_QUEUES_MAX]; /* indexes of the message's fds */
	uint32_t vhosts_count;
	uint32_t vhosts[BROKER_QUEUES_MAX];
	uint32_t socket_buffer_bytes; /* what the sockets' buffers became; 0: none were given */
};

/* EnlargeSocketBuffers(sockets): the same service for sockets whose interface somebody else
 * creates. */
struct enlarge_socket_buffers_call {
	uint32_t sockets_count;
	uint32_t sockets[BROKER_SOCKETS_MAX];
};

/* What an interface is, as ListInterfaces tells it. */
struct broker_interface {
	char network[NETWORK_NAME_SIZE];
	char interface_name[16];
	bool has_record; /* the members between here and queues are known */
	struct mac mac;
	struct uuid interface_id;
	struct in_addr address;
	char hostname[HOSTNAME_SIZE]; /* empty: none */
	uint32_t uid;
	uint32_t queues;
	bool isolated, locked; /* how its port is kept */
	bool named;            /* opened by name */
};

/* ListNetworks(after). */
struct list_networks_call {
	char after[NETWORK_NAME_SIZE]; /* empty: from the first on */
};

/* ListInterfaces(after). */
struct list_interfaces_call {
	char after[16]; /* empty: from the first on */
};

json_t *acquire_network_encode(const struct acquire_network_call *call);
int acquire_network_decode(json_t *parameters, struct acquire_network_call *ret_call, char *reason);

json_t *broker_network_encode(const struct broker_network *network);
int broker_network_decode(json_t *value, struct broker_network *ret_network);

/* AcquireNetwork's answer, {"network": Network}. */
json_t *acquired_network_encode(const struct broker_network *network);
int acquired_network_decode(json_t *parameters, struct broker_network *ret_network);

json_t *create_interface_encode(const struct create_interface_call *call);
int create_interface_decode(
	json_t *parameters, struct create_interface_call *ret_call, char *reason);

json_t *created_interface_encode(const struct created_interface *created);
int created_interface_decode(json_t *parameters, struct created_interface *ret_created);

json_t *enlarge_socket_buffers_encode(const struct enlarge_socket_buffers_call *call);
int enlarge_socket_buffers_decode(
	json_t *parameters, struct enlarge_socket_buffers_call *ret_call, char *reason);

/* EnlargeSocketBuffers' answer, {"socketBufferBytes": bytes}. */
json_t *enlarged_socket_buffers_encode(uint32_t bytes);
int enlarged_socket_buffers_decode(json_t *parameters, uint32_t *ret_bytes);

json_t *broker_interface_encode(const struct broker_interface *interface);

int list_networks_decode(json_t *parameters, struct list_networks_call *ret_call, char *reason);
int list_interfaces_decode(json_t *parameters, struct list_interfaces_call *ret_call, char *reason);

/* Where a forward comes from, and so when it ends. */
enum forward_origin {
	FORWARD_CONFIGURED, /* the network's configuration */
	FORWARD_HELD,       /* a connection */
	FORWARD_PINNED,     /* RemoveForward */
	FORWARD_ORIGIN_COUNT,
};

/* Forward: without pin it is held by the connection. */
struct forward_call {
	char network[NETWORK_NAME_SIZE];
	struct forward_spec spec;
	bool pin;
};

/* What a forward is, as Forward and ListForwards tell it. */
struct broker_forward {
	uint32_t id;
	char network[NETWORK_NAME_SIZE];
	struct forward_spec spec;
	bool is_active;
	struct endpoint address; /* where it leads while it is active */
	enum forward_origin origin;
	uint32_t uid;
};

/* ListForwards(after). */
struct list_forwards_call {
	uint32_t after; /* the id before the first one wanted */
};

/* RemoveForward(id). */
struct remove_forward_call {
	uint32_t id;
};

int forward_call_decode(json_t *parameters, struct forward_call *ret_call, char *reason);
int list_forwards_decode(json_t *parameters, struct list_forwards_call *ret_call, char *reason);
int remove_forward_decode(json_t *parameters, struct remove_forward_call *ret_call, char *reason);

json_t *broker_forward_encode(const struct broker_forward *forward);

/* DescribeNetwork(network). */
struct describe_network_call {
	char network[NETWORK_NAME_SIZE];
};

/* What a network serves and how it keeps its VMs, as DescribeNetwork tells it. */
struct broker_network_settings {
	bool dhcp, dns, router_advertisement;
	uint32_t lease_s;
	bool isolation, lock_mac;
	bool pinned; /* kept without users */
};

/* DescribeNetwork's answer beside the network itself. */
struct broker_network_details {
	const char *state;   /* "absent", "starting", "running", "lingering" */
	const char *problem; /* why it is out of service; empty: it is not */
	struct broker_network_settings settings;
	uint32_t connections, interfaces; /* how many there are of everybody's */
};

/* A DHCP lease, as ListLeases tells it. */
struct listed_lease {
	char network[NETWORK_NAME_SIZE];
	struct in_addr address;
	struct mac mac;
	char hostname[HOSTNAME_SIZE]; /* empty: none */
	char interface_name[16];      /* of the VM that has this MAC; empty: there is none */
	uint32_t uid;                 /* its owner, where it has an interface */
	uint32_t expires_in_s;
};

/* ListLeases(after). */
struct list_leases_call {
	struct in_addr after; /* the address before the first one wanted */
};

/* Frames of one direction. Each counter only grows. */
struct traffic_counters {
	uint64_t packets, bytes;
	uint64_t drops; /* frames that came and went no further */
};

/* Of one interface. */
struct traffic {
	struct traffic_counters host_to_vm, vm_to_host;
};

/* What was counted of an interface, as ListStatistics tells it. */
struct broker_statistics {
	char network[NETWORK_NAME_SIZE];
	char interface_name[16];
	char hostname[HOSTNAME_SIZE]; /* empty: none */
	bool has_uid;
	uint32_t uid;
	bool has_kernel;
	struct traffic kernel; /* at the TAP */
	bool has_helper;
	struct traffic helper; /* at the VM's side of its cable */
};

/* ListStatistics(after). */
struct list_statistics_call {
	char after[16]; /* empty: from the first on */
};

/* ServeCounters(interfaceName). */
struct serve_counters_call {
	char interface_name[16];
};

int describe_network_decode(
	json_t *parameters, struct describe_network_call *ret_call, char *reason);
int list_leases_decode(json_t *parameters, struct list_leases_call *ret_call, char *reason);
int list_statistics_decode(json_t *parameters, struct list_statistics_call *ret_call, char *reason);

json_t *serve_counters_encode(const struct serve_counters_call *call);
int serve_counters_decode(json_t *parameters, struct serve_counters_call *ret_call, char *reason);

/* ServeCounters' answer, {"listener": 0}: the index of the message's fd. */
json_t *served_counters_encode(uint32_t listener);
int served_counters_decode(json_t *parameters, uint32_t *ret_listener);

json_t *network_described_encode(
	const struct broker_network *network, const struct broker_network_details *details);
json_t *listed_lease_encode(const struct listed_lease *lease);
json_t *broker_statistics_encode(const struct broker_statistics *statistics);

/*
 * What a helper answers when its counters are asked for: one message of TRAFFIC_TEXT_MAX bytes at
 * most, the type Traffic as JSON text.
 */
#define TRAFFIC_TEXT_MAX 512
json_t *traffic_encode(const struct traffic *traffic);
int traffic_from_text(const char *bytes, size_t size, struct traffic *ret_traffic);
