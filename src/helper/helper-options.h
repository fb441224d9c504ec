/*
 * vmnet-helper's command line: the original's options, checked before anything is done.
 */
#pragma once

#include "base/interface-options.h"
#include "helper/offload.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Pairs of queues of one interface: what the broker grants. */
#define HELPER_QUEUES_MAX 8

enum helper_action {
	HELPER_RUN,
	HELPER_PRINT_HELP,
	HELPER_PRINT_VERSION,
	HELPER_LIST_SHARED_INTERFACES,
};

/* Texts point into argv. */
struct helper_options {
	struct interface_options interface; /* first: the context of their table */
	enum helper_action action;
	int fd;                      /* -1: none given */
	const char *socket_path;     /* NULL: none given */
	const char *stream_path;     /* NULL: none given */
	const char *vhost_user_path; /* NULL: none given */
	uint32_t queues;             /* of the interface; 0: none given */
	bool has_tso;
	bool has_checksum_offload;
	bool has_vnet_hdr;
	uint32_t stats_interval_seconds; /* 0: no stats */
	bool is_verbose;
};

/*
 * Parses and validates. Positional arguments are passed over, as the original does. On failure
 * returns negative errno, and error (OPTIONS_ERROR_SIZE bytes) holds one line that names the option
 * and the fix.
 */
int helper_options_parse(int argc, char **argv, struct helper_options *ret_options, char *error);

/* What the VM's side of a socket does by itself. */
enum offload_mode helper_options_offload_mode(const struct helper_options *options);

/* The path at which the helper makes a socket; NULL: at none. */
const char *helper_options_path(const struct helper_options *options);

void helper_options_print_help(FILE *file);
