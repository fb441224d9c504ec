/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "base/options.h"
#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

struct settings {
	uint32_t count;
	const char *name;
	int verbose;
	int every;
};

static int parse_count(void *context, const char *argument, char *error)
{
	struct settings *settings = context;

	if (text_to_uint32(argument, 1, 9, &settings->count) < 0) {
		snprintf(error, OPTIONS_ERROR_SIZE, "must be a number from 1 to 9");
		return -ERANGE;
	}
	return 0;
}

static int parse_name(void *context, const char *argument, char *error)
{
	struct settings *settings = context;

	settings->name = argument;
	return *argument ? 0 : -EINVAL;
}

static int parse_verbose(void *context, const char *argument, char *error)
{
	struct settings *settings = context;

	assert_null(argument);
	settings->verbose++;
	return 0;
}

static int parse_every(void *context, const char *argument, char *error)
{
	((struct settings *)context)->every = argument ? atoi(argument) : -1;
	return 0;
}

static const struct option_entry table[] = {
	{.name = "count",
		.letter = 'c',
		.argument = "NUMBER",
		.help = "how many",
		.parse = parse_count},
	{.name = "name", .argument = "TEXT", .help = "which", .parse = parse_name},
	{.name = "verbose", .letter = 'v', .help = "say more", .parse = parse_verbose},
	{.name = "hidden", .parse = parse_verbose},
	{.name = "every",
		.argument = "SECONDS",
		.help = "again and again",
		.parse = parse_every,
		.argument_is_optional = true},
};

/* Parses up to 6 words behind the program's name. */
static int parse(const char *const *words, struct settings *settings, char *error, int *ret_first)
{
	char storage[7][64] = {"program"};
	char *argv[8] = {storage[0]};
	int argc = 1;

	*settings = (struct settings){0};
	strcpy(error, "untouched");
	for (; words[argc - 1]; argc++) {
		strcpy(storage[argc], words[argc - 1]);
		argv[argc] = storage[argc];
	}
	return options_parse(table, array_length(table), argc, argv, settings, error, ret_first);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect_count(const char *const *words, uint32_t count, int verbose, int first)
{
	struct settings settings;
	char error[OPTIONS_ERROR_SIZE];
	int ret_first = -1;

	assert_int_equal(parse(words, &settings, error, &ret_first), 0);
	assert_int_equal(settings.count, count);
	assert_int_equal(settings.verbose, verbose);
	assert_int_equal(ret_first, first);
	assert_string_equal(error, "untouched");
}

static void options_take_all_usual_forms(void **state)
{
	expect_count(WORDS("--count", "3"), 3, 0, 3);
	expect_count(WORDS("--count=4"), 4, 0, 2);
	expect_count(WORDS("-c", "5"), 5, 0, 3);
	expect_count(WORDS("-c6"), 6, 0, 2);
	expect_count(WORDS("--verbose", "-c6", "-v", "--hidden"), 6, 3, 5);
	expect_count(WORDS("--count=1", "--count", "2"), 2, 0, 4);
	expect_count((const char *const[]){NULL}, 0, 0, 1);
}

static void parsing_ends_at_what_is_no_option(void **state)
{
	expect_count(WORDS("-v", "run", "--count", "x"), 0, 1, 2);
	expect_count(WORDS("-v", "--", "--count", "x"), 0, 1, 3);
	expect_count(WORDS("-v", "-", "-v"), 0, 1, 2);
	expect_count(WORDS("-v", "", "-v"), 0, 1, 2);
	expect_count(WORDS("--"), 0, 0, 2);
}

static void an_argument_may_look_like_an_option(void **state)
{
	struct settings settings;
	char error[OPTIONS_ERROR_SIZE];
	int first;

	assert_int_equal(parse(WORDS("--name", "--verbose"), &settings, error, &first), 0);
	assert_int_equal(settings.verbose, 0);
	assert_int_equal(first, 3);
}

static void expect_error(const char *const *words, int result, const char *text)
{
	struct settings settings;
	char error[OPTIONS_ERROR_SIZE];
	int first = -1;

	assert_int_equal(parse(words, &settings, error, &first), result);
	assert_string_equal(error, text);
	assert_int_equal(first, -1);
}

static void errors_name_the_option_and_the_fix(void **state)
{
	expect_error(
		WORDS("--count", "10"), -ERANGE, "option --count 10: must be a number from 1 to 9");
	expect_error(WORDS("-c0"), -ERANGE, "option --count 0: must be a number from 1 to 9");
	expect_error(WORDS("--name="), -EINVAL, "option --name : Invalid argument");
	expect_error(WORDS("-v", "--count"), -EINVAL, "option --count needs an argument: NUMBER");
	expect_error(WORDS("-c"), -EINVAL, "option --count needs an argument: NUMBER");
	expect_error(WORDS("--verbose=1"), -EINVAL, "option --verbose takes no argument");
	expect_error(WORDS("-vx"), -EINVAL, "option --verbose takes no argument");
	expect_error(WORDS("--counts", "1"), -EINVAL, "unknown option --counts; --help lists them");
	expect_error(WORDS("--coun=1"), -EINVAL, "unknown option --coun=1; --help lists them");
	expect_error(WORDS("-x"), -EINVAL, "unknown option -x; --help lists them");
	expect_error(WORDS("--=1"), -EINVAL, "unknown option --=1; --help lists them");
}

static void long_words_do_not_overflow_the_error(void **state)
{
	char word[1000] = "--count=", option[1000] = "--";
	char program[] = "program";
	char *argv[] = {program, word, NULL}, *other_argv[] = {program, option, NULL};
	char error[OPTIONS_ERROR_SIZE];
	struct settings settings;
	int first;

	memset(word + strlen(word), '7', 900);
	memset(option + 2, 'o', 900);
	assert_int_equal(
		options_parse(table, array_length(table), 2, argv, &settings, error, &first),
		-ERANGE);
	assert_non_null(strstr(error, "must be a number from 1 to 9"));
	assert_int_equal(
		options_parse(table, array_length(table), 2, other_argv, &settings, error, &first),
		-EINVAL);
	assert_non_null(strstr(error, "--help lists them"));
}

static void read_back(FILE *file, char *text, size_t size)
{
	size_t length;

	rewind(file);
	length = fread(text, 1, size - 1, file);
	text[length] = '\0';
}

static void help_lists_what_is_not_hidden(void **state)
{
	FILE *file = tmpfile();
	char text[1024];

	assert_non_null(file);
	options_print_help(file, "program [options]", table, array_length(table));
	read_back(file, text, sizeof(text));
	fclose(file);
	assert_string_equal(text, "usage: program [options]\n\noptions:\n"
				  "  -c, --count NUMBER                   how many\n"
				  "      --name TEXT                      which\n"
				  "  -v, --verbose                        say more\n"
				  "      --every[=SECONDS]                again and again\n");
}

static void version_is_two_lines(void **state)
{
	FILE *file = tmpfile();
	char text[256], version[64], commit[64];
	int used = 0;

	assert_non_null(file);
	options_print_version(file);
	read_back(file, text, sizeof(text));
	fclose(file);
	assert_int_equal(
		sscanf(text, "version: %63[^\n]\ncommit: %63[^\n]%n", version, commit, &used), 2);
	assert_string_equal(text + used, "\n");
}

static void an_optional_argument_is_never_the_next_word(void **state)
{
	static const char *const next[] = {"--every", "5", NULL};
	static const char *const attached[] = {"--every=5", NULL};
	char error[OPTIONS_ERROR_SIZE];
	struct settings settings;
	int first;

	assert_int_equal(parse(next, &settings, error, &first), 0);
	assert_int_equal(settings.every, -1);
	assert_int_equal(first, 2);
	assert_int_equal(parse(attached, &settings, error, &first), 0);
	assert_int_equal(settings.every, 5);
	assert_int_equal(first, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_take_all_usual_forms),
		cmocka_unit_test(parsing_ends_at_what_is_no_option),
		cmocka_unit_test(an_argument_may_look_like_an_option),
		cmocka_unit_test(an_optional_argument_is_never_the_next_word),
		cmocka_unit_test(errors_name_the_option_and_the_fix),
		cmocka_unit_test(long_words_do_not_overflow_the_error),
		cmocka_unit_test(help_lists_what_is_not_hidden),
		cmocka_unit_test(version_is_two_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
