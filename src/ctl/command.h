/*
 * A command of vmnetctl: one entry in the table of commands.c, one file of its own.
 *
 * main parses the command line for it: options that every command has, then the command's own,
 * wherever they stand before or behind the positional arguments.
 */
#pragma once

#include "base/options.h"
#include "vmnet-broker.h"

#include <stdbool.h>
#include <stddef.h>

#define CTL_TAG "vmnetctl"

/* What a command works with. */
struct ctl {
	bool json;          /* --json: machines read along */
	const char *socket; /* --socket, or NULL: where vmnet_broker_connect() looks by itself */
	bool show_help;
	bool show_version;
	void *options; /* options_size bytes, zeroed, for the command's own options */
};

struct command {
	const char *name;
	const char *help;  /* one line */
	const char *usage; /* what follows "vmnetctl NAME", "[options] PORT TARGET", or "" */
	/* Beside --json, --socket and --help. Their parse functions get a struct ctl. */
	const struct option_entry *options;
	size_t options_count;
	size_t options_size;
	size_t arguments_max; /* how many positional arguments there may be */
	/* What begins with the first positional argument is another program's: as many as there
	 * are, options of it among them. */
	bool takes_program;
	/*
	 * Does it, with the positional arguments (NULL behind the last). Says by itself what goes
	 * wrong. Returns the exit status of the program: 0, or 1 when something failed (or, as with
	 * doctor, was found).
	 */
	int (*run)(struct ctl *ctl, size_t arguments_count, char **arguments);
};

extern const struct command capture_command;
extern const struct command doctor_command;
extern const struct command exec_command;
extern const struct command forward_command;
extern const struct command interfaces_command;
extern const struct command leases_command;
extern const struct command monitor_command;
extern const struct command network_command;
extern const struct command networks_command;
extern const struct command stats_command;

/* The table, sorted by name. */
extern const struct command *const commands[];
extern const size_t commands_count;

/* NULL when there is none of this name. */
const struct command *command_find(const char *name);

/*
 * The names of commands that name may have been meant for (a beginning, or at most two letters
 * away), as "x or y", into text; empty when none comes near.
 */
void command_suggest(const char *name, char *text, size_t text_size);
