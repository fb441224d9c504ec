#include "base/options.h"

#include "base/cleanup.h"
#include "commit.h"
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* name has length bytes; NULL: by its letter. */
static bool is_entry(const struct option_entry *entry, const char *name, size_t length, char letter)
{
	if (!name)
		return letter && entry->letter == letter;
	return strlen(entry->name) == length && strncmp(entry->name, name, length) == 0;
}

static const struct option_entry *find_entry(const struct option_entry *table, size_t table_count,
	const char *name, size_t length, char letter)
{
	for (size_t i = 0; i < table_count; i++) {
		const struct option_entry *found = NULL;

		if (table[i].name)
			found = is_entry(&table[i], name, length, letter) ? &table[i] : NULL;
		else
			found = find_entry(
				table[i].more, table[i].more_count, name, length, letter);
		if (found)
			return found;
	}
	return NULL;
}

static int apply(const struct option_entry *entry, const char *argument, void *context, char *error)
{
	char reason[OPTIONS_ERROR_SIZE] = "";
	int result = entry->parse(context, argument, reason);

	if (result < 0)
		snprintf(error, OPTIONS_ERROR_SIZE, "option --%s%s%.80s: %.120s", entry->name,
			argument ? " " : "", argument ? argument : "",
			*reason ? reason : strerror(-result));
	return result < 0 ? result : 0;
}

/* One word of the command line, with the word behind it where the option wants one. */
struct option_word {
	const struct option_entry *entry;
	const char *attached; /* "--name=VALUE", "-xVALUE"; NULL when there is none */
};

static struct option_word split_word(
	const struct option_entry *table, size_t table_count, const char *word)
{
	struct option_word split = {0};

	if (word[1] == '-') {
		const char *name = word + 2;
		const char *equals = strchr(name, '=');
		size_t length = equals ? (size_t)(equals - name) : strlen(name);

		split.entry = find_entry(table, table_count, name, length, 0);
		split.attached = equals ? equals + 1 : NULL;
	} else {
		split.entry = find_entry(table, table_count, NULL, 0, word[1]);
		split.attached = word[2] ? word + 2 : NULL;
	}
	return split;
}

/* Returns how many words the option took (1 or 2), or negative errno. */
static int parse_word(const struct option_entry *table, size_t table_count, char **words,
	void *context, char *error)
{
	struct option_word split = split_word(table, table_count, words[0]);
	const char *argument = split.attached;
	bool takes_next;
	int result;

	if (!split.entry) {
		snprintf(error, OPTIONS_ERROR_SIZE, "unknown option %.80s; --help lists them",
			words[0]);
		return -EINVAL;
	}
	if (!split.entry->argument && argument) {
		snprintf(error, OPTIONS_ERROR_SIZE, "option --%s takes no argument",
			split.entry->name);
		return -EINVAL;
	}
	takes_next = split.entry->argument && !argument && !split.entry->argument_is_optional;
	if (takes_next)
		argument = words[1];
	if (takes_next && !argument) {
		snprintf(error, OPTIONS_ERROR_SIZE, "option --%s needs an argument: %s",
			split.entry->name, split.entry->argument);
		return -EINVAL;
	}
	result = apply(split.entry, argument, context, error);
	if (result < 0)
		return result;
	return takes_next ? 2 : 1;
}

int options_parse(const struct option_entry *table, size_t table_count, int argc, char **argv,
	void *context, char *error, int *ret_first)
{
	int index = 1;

	while (index < argc && argv[index][0] == '-' && argv[index][1]) {
		int taken;

		if (strcmp(argv[index], "--") == 0) {
			index++;
			break;
		}
		taken = parse_word(table, table_count, argv + index, context, error);
		if (taken < 0)
			return taken;
		index += taken;
	}
	*ret_first = index;
	return 0;
}

static void print_entry(FILE *file, const struct option_entry *entry)
{
	const char *open = entry->argument_is_optional ? "[=" : " ";
	const char *close = entry->argument_is_optional ? "]" : "";
	char left[64];

	snprintf(left, sizeof(left), "%c%c%s --%s%s%s%s", entry->letter ? '-' : ' ',
		entry->letter ? entry->letter : ' ', entry->letter ? "," : " ", entry->name,
		entry->argument ? open : "", entry->argument ? entry->argument : "",
		entry->argument ? close : "");
	fprintf(file, "  %-36s %s\n", left, entry->help);
}

static void print_entries(FILE *file, const struct option_entry *table, size_t table_count)
{
	for (size_t i = 0; i < table_count; i++) {
		if (!table[i].name)
			print_entries(file, table[i].more, table[i].more_count);
		else if (table[i].help)
			print_entry(file, &table[i]);
	}
}

void options_print_help(
	FILE *file, const char *usage, const struct option_entry *table, size_t table_count)
{
	fprintf(file, "usage: %s\n\noptions:\n", usage);
	print_entries(file, table, table_count);
}

void options_print_version(FILE *file)
{
	fprintf(file, "version: %s\ncommit: %s\n", VMNET_VERSION, VMNET_COMMIT);
}
