/*
 * Reservations of the configuration: which address and name a VM finds, before and above what the
 * broker would choose. Their addresses are put among the network's own reservations
 * (network->memory), so that nobody else is given one, and DHCP knows them before the VM comes.
 *
 * A configured address outside of the subnet a network runs with waits until it is next made.
 */
#pragma once

#include "broker/network.h"

/* Fills in the MACs of reservations that are known by interface id: once for a configuration, with
 * the instance they follow from. */
void configured_reservations_init(struct config *config, uint32_t instance);

/* The reservation of a VM with that MAC, or that interface id (may be NULL); NULL: none. */
const struct config_reservation *configured_reservation_find(
	const struct network *network, struct mac mac, const struct uuid *interface_id);

/* The one that has this name (case says nothing, RFC 4343); NULL: none. */
const struct config_reservation *configured_reservation_find_name(
	const struct network *network, const char *name);

/* The name reserved for a MAC, or for the interface id of the live interface with it; NULL: none.
 */
const char *configured_reservation_name(const struct network *network, struct mac mac);

/* Whether a MAC has a configured address: it is not to be given to another one. */
bool configured_reservation_has_address(const struct network *network, struct mac mac);

/*
 * Makes the network's own reservations what is configured. An address that a live interface has is
 * left to it for its life. Returns whether network->memory changed.
 */
bool configured_reservations_apply(struct network *network);

/* The same after an interface has gone, when one may have waited for its address. */
bool configured_reservations_follow(struct network *network, const struct interface_record *gone);

/*
 * The configured address of a new interface into network->memory: 1 when that changed, 0 when not
 * or none is configured; -ECANCELED with *failure (Conflict) when a live interface has it.
 */
int configured_reservation_claim(
	struct network *network, const struct interface_record *record, struct failure *failure);

/* A name that a VM declares: -ECANCELED with *failure (Conflict) when it is another's. */
int configured_reservation_check_name(const struct network *network,
	const struct interface_record *record, const char *name, struct failure *failure);
