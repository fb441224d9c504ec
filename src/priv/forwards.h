/*
 * Ports of the host that lead to VMs: an nft table of the instance's own beside that of nat.h, made
 * whole, in one transaction, from the list the front wants and from what the kernel's bridges say.
 *
 * Which rules and why: docs/decisions/019-forwards.md.
 */
#pragma once

#include "priv/links.h"
#include "priv/outcome.h"
#include "priv/verbs.h"

/*
 * Makes the table what the count records of struct verb_forward in the memory file say, without one
 * of them removes it. The file must be sealed (fcntl(2), F_SEAL_WRITE, F_SEAL_SHRINK), so that it
 * can neither change while it is checked nor let us wait. Puts into outcome how many have a rule:
 * one whose target is in none of our networks, or that forwards_takes_service(), has none. -EINVAL:
 * the file or a record is malformed; nothing is changed then. Says into outcome what failed.
 */
int forwards_apply(struct links *links, int file, const struct verb_apply_forwards *call,
	struct verb_outcome *outcome);

/* Checks what can be checked without a kernel: protocols, ports, addresses, no port twice. Pure.
 * -EINVAL, and says into outcome which. */
int forwards_check(
	const struct verb_forward *forwards, size_t forwards_count, struct verb_outcome *outcome);

/* The bridge of the network that the target of a forward is in, as a VM's address; NULL: none.
 * Pure.
 */
const struct bridge_facts *forwards_find_bridge(const struct verb_forward *forward,
	const struct bridge_facts *bridges, size_t bridges_count);

/* Whether a forward takes connections of the host to 127.0.0.0/8. Pure. */
bool forwards_takes_loopback(const struct verb_forward *forward);

/*
 * Whether a forward would take from VMs what the host serves them itself: DNS and DHCP, by the
 * gateway's address or by every address. Pure.
 */
bool forwards_takes_service(const struct verb_forward *forward, const struct bridge_facts *bridges,
	size_t bridges_count);

/*
 * The nft commands for the table of one instance, to be freed. Pure. Every forward given has a
 * target on one of the bridges. NULL when memory is out.
 */
char *forwards_build_commands(uint32_t instance, const struct verb_forward *forwards,
	size_t forwards_count, const struct bridge_facts *bridges, size_t bridges_count);
