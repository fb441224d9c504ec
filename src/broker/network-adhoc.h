/*
 * Entries of the registry that no configuration keeps: made for the first user of an ad-hoc
 * network, forgotten when their network has gone.
 */
#pragma once

#include "broker/credentials.h"
#include "broker/network.h"

/*
 * The name of the network that a choice means: the one it names, the one of the mode, that of
 * the ad-hoc network with its addresses, or a network of mode bridged that user shares its
 * interface through. -ECANCELED with *failure filled in.
 */
int network_choose(const struct registry *registry, const struct network_choice *choice,
	const struct credentials *user, char name[NETWORK_NAME_SIZE], struct failure *failure);

/* Whether it is not configured and its name says what it is. */
bool network_is_adhoc(const struct network *network);

/*
 * The entry, added if need be, of the ad-hoc network that name stands for and that is ABSENT, for
 * uid, who may have so many of them. Returns 0, -ENOENT when the name stands for none, or
 * -ECANCELED with *failure filled in.
 */
int network_find_adhoc(struct registry *registry, const char *name, uid_t uid,
	struct network **ret_network, struct failure *failure);

/* Forgets soon what is neither configured nor there. From any place: it happens in the loop. */
void registry_forget_soon(struct registry *registry);

/* The timer's call-back for this; context is the registry. */
void registry_forget(void *context);

/* Removes what a broker that was killed kept of networks and interfaces that have gone since. */
void registry_sweep(struct registry *registry);
