/* Capture's parameters, decoded as messages.h does it. Pure. */
#pragma once

#include "wire/messages.h"

#define CAPTURE_SNAPLEN_DEFAULT 262144
#define CAPTURE_SNAPLEN_MIN     64

/* Capture(network, interface, snaplen, count): of one of the first two. */
struct capture_call {
	char network[NETWORK_NAME_SIZE]; /* empty: an interface */
	char interface[16];              /* its link's name; empty: a network */
	uint32_t snaplen;                /* bytes of a packet that are kept */
	uint32_t count;                  /* packets; 0: any number */
};

int capture_call_decode(json_t *parameters, struct capture_call *ret_call, char *reason);
