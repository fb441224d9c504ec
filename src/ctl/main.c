/*
 * vmnetctl: asks vmnet-broker and tells people and scripts. Each command has a file of its own;
 * here is what they have in common.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/command.h"
#include "ctl/terminal.h"

#include <signal.h>
#include <string.h>

#define OPTIONS_MAX   24
#define ARGUMENTS_MAX 16

static int parse_json(void *context, const char *argument, char *error)
{
	((struct ctl *)context)->json = true;
	return 0;
}

static int parse_socket(void *context, const char *argument, char *error)
{
	((struct ctl *)context)->socket = argument;
	return 0;
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct ctl *)context)->show_help = true;
	return 0;
}

static int parse_version(void *context, const char *argument, char *error)
{
	((struct ctl *)context)->show_version = true;
	return 0;
}

static const struct option_entry common_options[] = {
	{"json", 0, NULL, "print JSON, for programs", parse_json},
	{"socket", 0, "PATH",
		"the broker's socket; else VMNET_BROKER_SOCKET or where it usually is",
		parse_socket},
	{"version", 0, NULL, "print the version and exit", parse_version},
	{"help", 'h', NULL, "print this and exit", parse_help},
};

/* The options that a command takes: its own, then the common ones. */
struct option_table {
	struct option_entry entries[OPTIONS_MAX];
	size_t count;
};

static void join_options(const struct command *command, struct option_table *table)
{
	size_t own = command ? command->options_count : 0;

	table->count = 0;
	for (size_t i = 0; i < own && table->count < OPTIONS_MAX; i++)
		table->entries[table->count++] = command->options[i];
	for (size_t i = 0; i < array_length(common_options) && table->count < OPTIONS_MAX; i++)
		table->entries[table->count++] = common_options[i];
}

/* Where the positional arguments went. */
struct arguments {
	char *words[ARGUMENTS_MAX + 1];
	char **program; /* NULL: words */
	size_t count;
};

static int add_argument(struct arguments *arguments, const struct command *command, char *word)
{
	if (arguments->count >= command->arguments_max || arguments->count >= ARGUMENTS_MAX) {
		log_error(CTL_TAG, "%s: one argument too many, \"%s\"; usage: vmnetctl %s %s",
			command->name, word, command->name, command->usage);
		return -1;
	}
	arguments->words[arguments->count++] = word;
	return 0;
}

/* Options may stand behind positional arguments, too. argv[0] is the command's name. */
static int parse_command(const struct command *command, struct ctl *ctl, int argc, char **argv,
	struct arguments *arguments)
{
	char error[OPTIONS_ERROR_SIZE];
	struct option_table table;
	bool is_over = false;

	join_options(command, &table);
	while (argc > 1) {
		int first = 1;

		if (!is_over && options_parse(table.entries, table.count, argc, argv, ctl, error,
					&first) < 0) {
			log_error(CTL_TAG, "%s: %s", command->name, error);
			return -1;
		}
		is_over = is_over || (first > 1 && strcmp(argv[first - 1], "--") == 0);
		if (first < argc && command->takes_program) {
			arguments->program = argv + first;
			arguments->count = (size_t)(argc - first);
			return 0;
		}
		if (first < argc && add_argument(arguments, command, argv[first]) < 0)
			return -1;
		argc -= first;
		argv += first;
	}
	return 0;
}

static void print_program_help(void)
{
	struct option_table table;

	join_options(NULL, &table);
	options_print_help(
		stdout, "vmnetctl [options] COMMAND [arguments]", table.entries, table.count);
	printf("\ncommands:\n");
	for (size_t i = 0; i < commands_count; i++)
		printf("  %-36s %s\n", commands[i]->name, commands[i]->help);
	printf("\nvmnetctl COMMAND --help tells more of a command.\n\n"
	       "exit status: 0; 1 when something failed or, with doctor, was found; exec's is its\n"
	       "command's. ^C ends stats --watch with 0. Who stops reading ends vmnetctl quietly, "
	       "by\n"
	       "SIGPIPE.\n");
}

static void print_command_help(const struct command *command)
{
	struct option_table table;
	char usage[256];

	join_options(command, &table);
	snprintf(usage, sizeof(usage), "vmnetctl %s%s%s\n\n%s", command->name,
		*command->usage ? " " : "", command->usage, command->help);
	options_print_help(stdout, usage, table.entries, table.count);
}

static void report_unknown(const char *name)
{
	char near[128];

	command_suggest(name, near, sizeof(near));
	if (*near)
		log_error(CTL_TAG, "unknown command \"%s\"; did you mean %s? --help lists them all",
			name, near);
	else
		log_error(CTL_TAG, "unknown command \"%s\"; --help lists them", name);
}

/* argv[0] is the command's name. */
static int run_command(struct ctl *ctl, int argc, char **argv)
{
	const struct command *command = command_find(argv[0]);
	struct arguments arguments = {.count = 0};
	cleanup_free void *options = NULL;

	if (!command) {
		report_unknown(argv[0]);
		return EXIT_FAILURE;
	}
	options = calloc(1, command->options_size + 1);
	if (!options) {
		log_error(CTL_TAG, "out of memory");
		return EXIT_FAILURE;
	}
	ctl->options = options;
	if (parse_command(command, ctl, argc, argv, &arguments) < 0)
		return EXIT_FAILURE;
	if (ctl->show_version)
		options_print_version(stdout);
	else if (ctl->show_help)
		print_command_help(command);
	else
		return command->run(ctl, arguments.count,
			arguments.program ? arguments.program : arguments.words);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct ctl ctl = {0};
	char error[OPTIONS_ERROR_SIZE];
	int first;

	/* A starter may have had it ignored; then one who stops reading would be an error. */
	signal(SIGPIPE, SIG_DFL);
	terminal_set_locale();
	if (options_parse(common_options, array_length(common_options), argc, argv, &ctl, error,
		    &first) < 0) {
		log_error(CTL_TAG, "%s", error);
		return EXIT_FAILURE;
	}
	if (ctl.show_version) {
		options_print_version(stdout);
		return EXIT_SUCCESS;
	}
	if (first < argc)
		return run_command(&ctl, argc - first, argv + first);
	if (ctl.show_help) {
		print_program_help();
		return EXIT_SUCCESS;
	}
	log_error(CTL_TAG, "no command given; --help lists them");
	return EXIT_FAILURE;
}
