/*
 * The key "forwards" of a configured network:
 *
 *     "forwards": [{"port": 8080, "to": "web:80"},
 *                  {"protocol": "udp", "listen": "198.51.100.2:53", "to": "192.168.64.5:53"}]
 */
#pragma once

#include "wire/forward-spec.h"

#include <jansson.h>

#define CONFIG_FORWARDS_MAX 64 /* of one network */

/* What is wrong, and where. */
struct config_forwards_mistake {
	char key[48]; /* "forwards[1].to" */
	char text[256];
};

/*
 * Pure. *ret_specs is an array to be freed, NULL when there are none. -EINVAL, with *ret_mistake
 * filled in, for the first mistake.
 */
int config_forwards_parse(const json_t *value, struct forward_spec **ret_specs, size_t *ret_count,
	struct config_forwards_mistake *ret_mistake);
