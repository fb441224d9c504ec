/*
 * What the kernel cannot hold for us, as small JSON files.
 *
 *     STATE/networks/NAME.json          subnet and reservations; outlives the network, unless
 *                                       that is an ad-hoc one
 *     RUNTIME/networks/NAME.json        a running network
 *     RUNTIME/networks/NAME.hosts       its reservations in dnsmasq's words
 *     RUNTIME/networks/NAME.names       its VMs' names in the form of hosts(5)
 *     RUNTIME/networks/NAME.resolvers   whom its DNS asks, in the form of resolv.conf(5)
 *     RUNTIME/interfaces/NUMBER.json    a live interface
 *     RUNTIME/interfaces/NUMBER.counters    where its helper's counters are asked for, see
 *                                           helper-counters.h; a socket
 *
 * A record is written whole or not at all; it is written before the kernel object it describes, and
 * removed after that has gone. One below STATE is on the disk when the call returns. One below
 * RUNTIME outlives a crash of the broker, and a power cut as little as what it describes.
 */
#pragma once

#include "broker/platform.h"
#include "broker/reservations.h"
#include "broker/settings.h"

#include <stdbool.h>
#include <sys/types.h>

struct records;

/* What outlives a network. */
struct network_memory {
	bool has_subnet;
	struct ipv4_subnet subnet;
	struct reservations reservations; /* owned */
};

/* A running network. */
struct network_record {
	struct ipv4_subnet subnet; /* prefix length 0: none, of mode bridged */
	struct network_settings settings;
	uid_t uid; /* who had it made */
};

/* A live interface. */
struct interface_record {
	char network[NETWORK_NAME_SIZE];
	uid_t uid; /* its owner */
	struct mac mac;
	struct uuid interface_id;
	struct in_addr address;        /* zero: none of ours, as on networks of mode bridged */
	char hostname[HOSTNAME_SIZE];  /* declared; empty: none */
	char told_name[HOSTNAME_SIZE]; /* by DHCP, where none was declared; empty: none yet */
	uint32_t queues;
	/* Whose connection had it made; pid 0: not known. Of mode bridged only. */
	struct platform_process holder;
};

#define RECORDS_OWNER_UNKNOWN ((uid_t)-1)

/*
 * Opens both directories, which belong to the caller's user, and makes what is missing below them.
 * Negative errno.
 */
int records_open(
	const char *state_directory, const char *runtime_directory, struct records **ret_records);
void records_close(struct records *records);

/* All of these: 0 or negative errno. Nothing recorded is -ENOENT. A record that cannot be
 * understood is renamed to NAME.json.corrupt and reported as -EBADMSG. */

int records_save_memory(
	struct records *records, const char *network, const struct network_memory *memory);
/* ret_memory->reservations is the caller's to release. */
int records_load_memory(
	struct records *records, const char *network, struct network_memory *ret_memory);

/* What dnsmasq wrote of its leases goes with it. Not being there is no error. */
int records_remove_memory(struct records *records, const char *network);

int records_save_network(
	struct records *records, const char *network, const struct network_record *record);
int records_load_network(
	struct records *records, const char *network, struct network_record *ret_record);
/* Its files for dnsmasq go with it. Not being there is no error. */
int records_remove_network(struct records *records, const char *network);

int records_save_interface(
	struct records *records, uint32_t number, const struct interface_record *record);
int records_load_interface(
	struct records *records, uint32_t number, struct interface_record *ret_record);
/* Not being there is no error. */
int records_remove_interface(struct records *records, uint32_t number);

/* RUNTIME/interfaces, which stays the records'. */
int records_interfaces_directory(const struct records *records);

/* Opens what dnsmasq has written of a network's leases for reading; the fd is the caller's. */
int records_open_leases(const struct records *records, const char *network, int *ret_fd);

/* dnsmasq's files of reservations, names and name servers; text is the whole of one. */
int records_save_hosts(struct records *records, const char *network, const char *text);
int records_save_names(struct records *records, const char *network, const char *text);
int records_save_resolvers(struct records *records, const char *network, const char *text);

/* Removes the records for which keep answers false, and unfinished writes. Returns how many
 * records were removed, or negative errno. */
int records_sweep_networks(
	struct records *records, bool (*keep)(void *context, const char *network), void *context);
int records_sweep_memories(
	struct records *records, bool (*keep)(void *context, const char *network), void *context);
int records_sweep_interfaces(
	struct records *records, bool (*keep)(void *context, uint32_t number), void *context);
