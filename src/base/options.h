/*
 * Command lines from a table: one entry an option, one parser for all programs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define OPTIONS_ERROR_SIZE 256

struct option_entry {
	const char *name;     /* "interface-id" for --interface-id */
	char letter;          /* 'i' for -i, or 0 */
	const char *argument; /* what help calls its argument, or NULL for a flag */
	const char *help;     /* one line; NULL hides the option from help */
	/*
	 * Takes the argument (NULL for a flag) into the context. On bad values: negative errno, and
	 * says into error (OPTIONS_ERROR_SIZE bytes) what is allowed, without naming the option.
	 */
	int (*parse)(void *context, const char *argument, char *error);
	/* The argument is taken from "--name=VALUE" alone, and is NULL where that is "--name". */
	bool argument_is_optional;
	/* Without a name: another table's entries stand here. One level deep. */
	const struct option_entry *more;
	size_t more_count;
};

/*
 * Parses until the first positional argument or "--". On success *ret_first is the index of the
 * first argument behind the options. On failure returns negative errno, and error holds one line
 * that names the option and the fix.
 */
int options_parse(const struct option_entry *table, size_t table_count, int argc, char **argv,
	void *context, char *error, int *ret_first);

/* "usage" line, then every option of the table with its help, aligned. */
void options_print_help(
	FILE *file, const char *usage, const struct option_entry *table, size_t table_count);

/* "version: X" and "commit: Y", the two lines tools parse as YAML. */
void options_print_version(FILE *file);
