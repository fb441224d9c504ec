#include "ctl/table.h"

#include "base/log.h"
#include "ctl/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CELL_SIZE   256
#define COLUMNS_MAX 16

static void format_cell(const json_t *value, char *cell)
{
	if (json_is_string(value))
		snprintf(cell, CELL_SIZE, "%s", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(cell, CELL_SIZE, "%lld", (long long)json_integer_value(value));
	else if (json_is_boolean(value))
		snprintf(cell, CELL_SIZE, "%s", json_is_true(value) ? "yes" : "no");
	else
		snprintf(cell, CELL_SIZE, "-");
}

static void measure(
	const json_t *list, const struct column *columns, size_t columns_count, int *widths)
{
	char cell[CELL_SIZE];

	for (size_t i = 0; i < columns_count; i++) {
		widths[i] = (int)strlen(columns[i].title);
		for (size_t row = 0; row < json_array_size(list); row++) {
			format_cell(json_object_get(json_array_get(list, row), columns[i].member),
				cell);
			if ((int)strlen(cell) > widths[i])
				widths[i] = (int)strlen(cell);
		}
	}
}

/* Without blanks at the end of a line. */
static void print_cell(const char *cell, int width, bool is_last)
{
	if (is_last)
		printf("%s\n", cell);
	else
		printf("%-*s  ", width, cell);
}

int table_print(const json_t *list, const struct column *columns, size_t columns_count)
{
	int widths[COLUMNS_MAX];
	char cell[CELL_SIZE];

	if (columns_count > COLUMNS_MAX)
		columns_count = COLUMNS_MAX;
	measure(list, columns, columns_count, widths);
	for (size_t i = 0; i < columns_count; i++)
		print_cell(columns[i].title, widths[i], i + 1 == columns_count);
	for (size_t row = 0; row < json_array_size(list); row++)
		for (size_t i = 0; i < columns_count; i++) {
			format_cell(json_object_get(json_array_get(list, row), columns[i].member),
				cell);
			print_cell(cell, widths[i], i + 1 == columns_count);
		}
	if (fflush(stdout) == 0)
		return 0;
	log_error(CTL_TAG, "the table could not be written: %s", strerror(errno));
	return 1;
}
