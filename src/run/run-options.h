/*
 * The command line of vmnet-client. Pure: nothing is opened or started, so everything that can be
 * wrong with the words alone is said before anything exists.
 */
#pragma once

#include "base/interface-options.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* How the command reaches its network. The first three have vmnet-helper at the other end. */
enum run_attach {
	RUN_ATTACH_SOCKET,     /* a datagram socket */
	RUN_ATTACH_STREAM,     /* a stream socket, each frame behind its length */
	RUN_ATTACH_VHOST_USER, /* the path of a vhost-user back-end's socket */
	RUN_ATTACH_NATIVE,     /* the queues of a TAP */
	RUN_ATTACH_TAP,        /* the name of a TAP */
	RUN_ATTACH_COUNT,
};

#define RUN_QUEUES_MAX 8

/* Texts are those of argv. */
struct run_options {
	struct interface_options interface; /* first: the context of their table */
	/* What was named; else socket, or with qemu the fastest kind that the other options allow.
	 */
	enum run_attach attach;
	bool attach_was_named;
	uint32_t queues;           /* 1..RUN_QUEUES_MAX; 0: not said */
	uint32_t stats_interval_s; /* 0: off */
	bool enable_tso;           /* with enable_checksum_offload, or neither */
	bool enable_checksum_offload;
	bool vnet_hdr;
	bool qemu;
	bool verbose;
	bool show_help;
	bool show_version;
	char **command; /* NULL-terminated; empty when there is none */
};

/*
 * Parses and checks argv. On failure returns negative errno, and error (OPTIONS_ERROR_SIZE bytes)
 * holds one line that names the option and the fix. A missing command is no failure here, because
 * --help needs none.
 */
int run_options_parse(int argc, char **argv, struct run_options *ret_options, char *error);

/* Whether vmnet-helper carries its frames. */
bool run_options_need_helper(const struct run_options *options);

/* Number of queues the command gets with native and vhost-user, at least 1. */
uint32_t run_options_queues(const struct run_options *options);

/* Usage and every option. */
void run_options_print_help(FILE *file);
