#include "base/cleanup.h"
#include "ctl/command.h"

#include <string.h>

#define NAME_MAX_LENGTH 31

const struct command *const commands[] = {
	&capture_command,
	&doctor_command,
	&exec_command,
	&forward_command,
	&interfaces_command,
	&leases_command,
	&monitor_command,
	&network_command,
	&networks_command,
	&stats_command,
};
const size_t commands_count = array_length(commands);

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < commands_count; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static size_t smallest(size_t a, size_t b, size_t c)
{
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

/* How many letters have to be put in, left out or changed (Levenshtein). */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_LENGTH + 1];
	size_t length = strlen(b);

	if (length > NAME_MAX_LENGTH || strlen(a) > NAME_MAX_LENGTH)
		return NAME_MAX_LENGTH;
	for (size_t j = 0; j <= length; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < length; j++) {
			size_t above = row[j + 1];

			row[j + 1] = smallest(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
			diagonal = above;
		}
	}
	return row[length];
}

static bool is_near(const char *name, const char *command)
{
	return *name && (strncmp(name, command, strlen(name)) == 0 || distance(name, command) <= 2);
}

void command_suggest(const char *name, char *text, size_t text_size)
{
	*text = '\0';
	for (size_t i = 0; i < commands_count; i++) {
		size_t used = strlen(text);

		if (is_near(name, commands[i]->name))
			snprintf(text + used, text_size - used, "%s%s", used > 0 ? " or " : "",
				commands[i]->name);
	}
}
