/*
 * Which network a call is about: one by its name, or the one that a mode and addresses stand for.
 * Pure.
 */
#pragma once

#include "base/address-range.h"

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>

#define NETWORK_MODE_TEXT_SIZE 16

struct network_choice {
	char network[NETWORK_NAME_SIZE];   /* empty: by what follows */
	char mode[NETWORK_MODE_TEXT_SIZE]; /* "shared", "host", "bridged"; empty with network */
	struct address_range
		range; /* of shared and host; all zero: the network named as the mode */
	char shared_interface[IFNAMSIZ]; /* of bridged; else empty */
};

/* Whether it says addresses. */
bool network_choice_has_range(const struct network_choice *choice);

/* Adds its parameters to a call's. -1 when memory is out. */
int network_choice_encode(const struct network_choice *choice, json_t *parameters);

/*
 * One parameter each; choice is a struct network_choice, or begins with one. NULL, or (static
 * storage) what would have been allowed.
 */
const char *network_choice_decode_network(json_t *value, void *choice);
const char *network_choice_decode_mode(json_t *value, void *choice);
const char *network_choice_decode_start(json_t *value, void *choice);
const char *network_choice_decode_end(json_t *value, void *choice);
const char *network_choice_decode_mask(json_t *value, void *choice);
const char *network_choice_decode_shared_interface(json_t *value, void *choice);

/* Once all are decoded: NULL, or (static storage) why they do not go together. */
const char *network_choice_check(const struct network_choice *choice);
