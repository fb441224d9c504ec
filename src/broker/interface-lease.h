/*
 * Which VM has a DHCP lease now, as far as dnsmasq has told since the broker started.
 */
#pragma once

#include "broker/interface.h"

/*
 * DHCP has given an address to a MAC, or renewed that: tells so, and later when it ends. name is
 * how it knows the VM; empty: not at all. A MAC that is no interface's is let pass: it is behind
 * one.
 */
void interface_lease_take(
	struct network *network, struct mac mac, struct in_addr address, const char *name);

/* The VM gave it back. */
void interface_lease_release(struct network *network, struct mac mac, struct in_addr address);

/* Forgets an interface's lease before the interface itself goes. */
void interface_lease_done(struct interface *interface);
