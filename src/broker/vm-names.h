/*
 * Which VM has which name on its network: the one its owner declared, else the one it told by DHCP
 * first. A name is one VM's as long as that lives.
 */
#pragma once

#include "broker/interface.h"

/* Empty: it has none. */
const char *vm_names_get(const struct interface *interface);

/*
 * Whether a new VM of the network may be called hostname, which is valid; empty: it declares none.
 * -ECANCELED with *failure for a name that no VM may have (InvalidRequest) and one that another VM
 * has (Conflict).
 */
int vm_names_check(const struct network *network, const char *hostname, struct failure *failure);

/*
 * The VM with that MAC has a lease under a name. It keeps it when it is free; otherwise it gets one
 * that nobody else can have, because dnsmasq would let it take the other VM's. Has dnsmasq told of
 * what is new.
 */
void vm_names_take_told(struct network *network, struct mac mac, const char *name);
