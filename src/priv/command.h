/*
 * dnsmasq's command line, from what the kernel says of a network and what the front wants served.
 */
#pragma once

#include "priv/dnsmasq.h"

#define COMMAND_ARGUMENTS_MAX 64

/* A NULL-terminated argument vector that owns its strings. Zero it first. */
struct command {
	char *arguments[COMMAND_ARGUMENTS_MAX + 1];
	size_t count;
};

/* Fills an empty command. -ENOMEM or, should the table grow, -E2BIG; then command_done() is still
 * to be called. */
int command_build_dnsmasq(struct command *command, const char *path,
	const struct bridge_facts *facts, const struct verb_start_dnsmasq *wanted,
	const struct dnsmasq_options *options);

/* Frees the strings and leaves it empty. */
void command_done(struct command *command);

#define cleanup_command __attribute__((__cleanup__(command_done)))
