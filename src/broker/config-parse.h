/*
 * What the files of the configuration's parser share: config.c finds the networks, config-keys.c
 * has the table of their keys, config-lists.c the keys with lists in them, config-check.c what can
 * be said of several keys only.
 */
#pragma once

#include "broker/config.h"

#include <jansson.h>

#define CONFIG_PATH_SIZE 64 /* "reservations[1023].interface_id" */

/* The keys that make a subnet together, as the helper's options do. */
enum config_range {
	CONFIG_RANGE_START,
	CONFIG_RANGE_END,
	CONFIG_RANGE_MASK,
	CONFIG_RANGE_COUNT,
};

/* A network while it is parsed. */
struct config_parse {
	struct config_network *network;
	uint64_t seen; /* bits: keys of the table by their place */
	bool has_range[CONFIG_RANGE_COUNT];
	struct in_addr range[CONFIG_RANGE_COUNT];
};

/* A value as it stands in the file, cut to what fits into a message. */
struct config_value_text {
	char text[80];
};
struct config_value_text config_describe_value(const json_t *value);

/* Notes a mistake: "FILE: NETWORK.PATH: TEXT"; path may be NULL. Of more than CONFIG_ERRORS_MAX the
 * others are left out. */
void config_add_error(struct config_network *network, const char *path, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Whether a built-in network has this name; *ret_mode is its mode then. */
bool config_is_built_in(const char *name, enum network_mode *ret_mode);

/* One key of a network with its value: unknown and repeated ones are mistakes. */
void config_parse_key(struct config_parse *parse, const char *name, json_t *value);

/* Whether a key of the table was given, rightly or not. */
bool config_has_key(const struct config_parse *parse, const char *name);

/* Notes the keys that mean nothing in the network's mode. */
void config_check_modes(struct config_parse *parse);

/* Values of config-lists.c's keys. */
void config_parse_reservations(struct config_network *network, json_t *value);
void config_parse_allow(struct config_network *network, json_t *value);
void config_parse_quotas(struct config_network *network, json_t *value);

/* Behind the last key: what keys say about each other. */
void config_check_network(struct config_parse *parse);
