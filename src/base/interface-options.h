/*
 * The options that vmnet-helper and vmnet-client share: which network an interface is on, and who
 * the VM is there.
 */
#pragma once

#include "base/options.h"
#include "base/text.h"

#include <stdbool.h>

/* Texts are those of argv, NULL: not said. */
struct interface_options {
	const char *network;
	const char *operation_mode; /* "shared", "host" or "bridged" */
	const char *shared_interface;
	const char *start_address, *end_address, *subnet_mask; /* all or none */
	const char *hostname;
	bool has_interface_id;
	struct uuid interface_id;
	bool has_mac;
	struct mac mac;
	bool isolation; /* --enable-isolation */
};

#define INTERFACE_OPTIONS_COUNT 10

/*
 * For an entry that has more of them; the context of the program's own entries must begin with a
 * struct interface_options.
 */
extern const struct option_entry interface_option_table[INTERFACE_OPTIONS_COUNT];

/*
 * Whether what was said goes together. -EINVAL, with one line that names the options and the fix in
 * error (OPTIONS_ERROR_SIZE bytes).
 */
int interface_options_check(const struct interface_options *options, char *error);

/* For messages: the named network, else the mode. */
const char *interface_options_network(const struct interface_options *options);
