/*
 * Interfaces: VMs' attachments to networks. One lives from the creation of its TAP until the kernel
 * says that the TAP has gone.
 */
#pragma once

#include "broker/network.h"

struct interface {
	struct network *network;
	struct interface *next; /* network->interfaces */
	uint32_t number;
	bool isolated, locked; /* as its port is kept; the kernel remembers it */
	bool named;            /* its owner opens it by its name; the kernel remembers this, too */
	bool is_leased;        /* there is no fd whose close would end it */
	struct interface_record record;
	char end_reason[96]; /* why it goes; empty: its holder closed it */
	/* drops.c's: what it counted last, valid in that round. */
	uint64_t drops;
	uint32_t drops_round;
	/* interface-lease.c's: what DHCP gave it (zero: nothing that is known), and until when. */
	struct in_addr lease_address;
	struct platform_timer *lease_timer;
};

/* Who asks for an interface. */
struct interface_owner {
	uid_t uid;
	pid_t pid; /* of the connection; 0: not known */
};

/* What interface_create() answers with. */
struct interface_fds {
	int fds[2 * PLATFORM_QUEUES_MAX]; /* the caller's */
	size_t count;
	size_t vhosts_count; /* so many of them, the last ones, are of /dev/vhost-net */
};

/*
 * Attaches a VM of owner to a network that serves. Checks the quota and the MAC, reserves the
 * address, records the interface and makes it. A host without vhost-net is no failure. Returns 0
 * with the interface, which stays the network's, or -ECANCELED with *failure filled in.
 */
int interface_create(struct network *network, const struct create_interface_call *call,
	const struct interface_owner *owner, struct interface **ret_interface,
	struct interface_fds *ret_fds, struct failure *failure);

/* Goes on with one that is in the kernel already; its record is read back. One that is leased is
 * taken away when its holder is gone, or not known. */
void interface_adopt(struct network *network, const struct platform_interface *link);

/* NULL when there is none. */
struct interface *interface_find(const struct registry *registry, uint32_t number);

/* The network's interface whose VM has that MAC; NULL when there is none. */
struct interface *interface_find_mac(const struct network *network, struct mac mac);

/* Its holder did what only an attacker does: tells so. Unknown ones are let pass. */
void interface_report_tampering(struct registry *registry, uint32_t number, const char *tampering);

/* By the name that peers know it by; of a user's own ones, or for root of all. NULL: none. */
struct interface *interface_find_own(const struct registry *registry, uid_t uid, const char *name);

/* Takes one away from its holder; it is released when it has gone. Unknown ones too. */
void interface_revoke(struct registry *registry, uint32_t number, const char *reason);

/* Forgets one that has gone, and its record. Unknown numbers are let pass. */
void interface_release(struct registry *registry, uint32_t number);

/* Frees a network's list; records stay. */
void interface_forget_all(struct network *network);
