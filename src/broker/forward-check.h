/* Whether there may be a forward, and where it leads: by what networks and interfaces there are. */
#pragma once

#include "broker/forward.h"

/*
 * Whether asker may have one more forward, and this one: network, access, quota, ports, target,
 * other forwards, programs of the host. Returns 0, or -ECANCELED with *failure filled in.
 */
int forward_check(const struct forwards *forwards, const struct forward_call *call,
	const struct credentials *asker, struct failure *failure);

/* The first forward of the list, other than itself, that takes packets for the same port. NULL:
 * none. */
const struct forward *forward_find_conflict(
	const struct forwards *forwards, uint8_t protocol, const struct endpoint *listen);

/* A program of the host that takes packets for the same port: says so, in words, into text. False:
 * none was found. */
bool forward_find_program(const struct forwards *forwards, uint8_t protocol,
	const struct endpoint *listen, char text[CONFIG_ERROR_SIZE]);

/* Where the forward of a record leads now. False: nowhere. */
bool forward_find_address(const struct registry *registry, const struct forward_record *record,
	struct endpoint *ret_address);
