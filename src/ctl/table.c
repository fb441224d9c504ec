#include "ctl/table.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/cell.h"
#include "ctl/command.h"

#include <errno.h>
#include <string.h>

#define COLUMNS_MAX 16
#define GAP         2 /* blanks between columns */
#define CUT_MIN     8 /* a text that is cut keeps so much */

#define BOLD   "\033[1m"
#define FAINT  "\033[2m"
#define NORMAL "\033[0m"

/* A table on its way out. */
struct layout {
	FILE *stream;
	const struct terminal *terminal;
	const struct column *columns;
	size_t count;
	int widths[COLUMNS_MAX];
	bool is_kept[COLUMNS_MAX];
	size_t last; /* of those that are kept */
};

static const json_t *find_member(const json_t *object, const char *path)
{
	char name[64];

	while (object && *path) {
		size_t length = strcspn(path, ".");

		snprintf(name, sizeof(name), "%.*s", (int)length, path);
		object = json_object_get(object, name);
		path += length + (path[length] == '.');
	}
	return object;
}

/* The text of a cell, to be freed; NULL when memory is out. */
static char *make_cell(const struct column *column, const json_t *object)
{
	char cell[CELL_SIZE];

	cell_format(column->kind, find_member(object, column->member), cell);
	return terminal_clean(cell);
}

static void measure(struct layout *layout, const json_t *list, size_t rows)
{
	for (size_t i = 0; i < layout->count; i++) {
		layout->widths[i] = (int)strlen(layout->columns[i].title);
		layout->is_kept[i] = true;
		for (size_t row = 0; row < rows; row++) {
			cleanup_free char *cell =
				make_cell(&layout->columns[i], json_array_get(list, row));
			int width = cell ? terminal_width(cell) : 0;

			if (width > layout->widths[i])
				layout->widths[i] = width;
		}
	}
}

/* What a column has when its texts are cut as short as they may be. */
static int least_width(const struct layout *layout, size_t column)
{
	int title = (int)strlen(layout->columns[column].title);
	int least = title > CUT_MIN ? title : CUT_MIN;
	int width = layout->widths[column];

	return layout->columns[column].can_cut && width > least ? least : width;
}

static int total_width(const struct layout *layout, bool is_cut)
{
	int total = -GAP;

	for (size_t i = 0; i < layout->count; i++)
		if (layout->is_kept[i])
			total += GAP + (is_cut ? least_width(layout, i) : layout->widths[i]);
	return total;
}

/* The widest column that can still be cut; count when there is none. */
static size_t find_cuttable(const struct layout *layout)
{
	size_t found = layout->count;

	for (size_t i = 0; i < layout->count; i++)
		if (layout->is_kept[i] && layout->widths[i] > least_width(layout, i) &&
			(found == layout->count || layout->widths[i] > layout->widths[found]))
			found = i;
	return found;
}

/* Leaves the column out that matters least; false when all that are left matter. */
static bool drop_column(struct layout *layout)
{
	size_t found = 0;

	for (size_t i = 1; i < layout->count; i++)
		if (layout->is_kept[i] &&
			(!layout->is_kept[found] ||
				layout->columns[i].rank >= layout->columns[found].rank))
			found = i;
	if (layout->columns[found].rank == 0 || !layout->is_kept[found])
		return false;
	layout->is_kept[found] = false;
	return true;
}

/* Columns that matter less go until the others fit, cut if need be; then only as much is cut. */
static void fit(struct layout *layout)
{
	int columns = layout->terminal->columns;
	size_t widest = 0;

	while (columns > 0 && total_width(layout, true) > columns && drop_column(layout))
		;
	while (columns > 0 && total_width(layout, false) > columns && widest < layout->count) {
		widest = find_cuttable(layout);
		if (widest < layout->count)
			layout->widths[widest]--;
	}
	for (size_t i = 0; i < layout->count; i++)
		if (layout->is_kept[i])
			layout->last = i;
}

static void write_colored(const struct layout *layout, const char *color, const char *text)
{
	bool is_colored = layout->terminal->has_color && *color;

	fprintf(layout->stream, "%s%s%s", is_colored ? color : "", text, is_colored ? NORMAL : "");
}

/* Without blanks at the end of a line. */
static void write_cell(const struct layout *layout, size_t column, const char *color, char *text)
{
	bool is_last = column == layout->last;
	int blanks;

	if (layout->columns[column].can_cut)
		terminal_cut(text, layout->widths[column]);
	blanks = layout->widths[column] - terminal_width(text);
	if (cell_is_number(layout->columns[column].kind)) {
		fprintf(layout->stream, "%*s", blanks, "");
		blanks = 0;
	}
	write_colored(layout, color, text);
	if (is_last)
		fputc('\n', layout->stream);
	else
		fprintf(layout->stream, "%*s", blanks + GAP, "");
}

static void write_titles(const struct layout *layout)
{
	for (size_t i = 0; i < layout->count; i++) {
		char title[CELL_SIZE];

		snprintf(title, sizeof(title), "%s", layout->columns[i].title);
		if (layout->is_kept[i])
			write_cell(layout, i, BOLD, title);
	}
}

static void write_row(const struct layout *layout, const json_t *object)
{
	for (size_t i = 0; i < layout->count; i++) {
		const struct column *column = &layout->columns[i];
		const json_t *value = find_member(object, column->member);
		cleanup_free char *cell = make_cell(column, object);

		if (layout->is_kept[i] && cell)
			write_cell(layout, i, cell_color(column->kind, value), cell);
	}
}

/* A table that is not whole says so. */
static void write_remark(const struct layout *layout, size_t rows_left)
{
	size_t columns_left = 0;
	char text[96];

	for (size_t i = 0; i < layout->count; i++)
		columns_left += !layout->is_kept[i];
	if (rows_left > 0)
		snprintf(text, sizeof(text), "(%zu more)", rows_left);
	else if (columns_left > 0)
		snprintf(text, sizeof(text), "(%zu columns need a wider terminal)", columns_left);
	else
		return;
	write_colored(layout, FAINT, text);
	fputc('\n', layout->stream);
}

void table_write(FILE *stream, const struct terminal *terminal, const json_t *list,
	const struct column *columns, size_t columns_count, size_t rows_max)
{
	size_t size = json_array_size(list);
	size_t rows = rows_max > 0 && rows_max < size ? rows_max : size;
	struct layout layout = {
		.stream = stream,
		.terminal = terminal,
		.columns = columns,
		.count = columns_count < COLUMNS_MAX ? columns_count : COLUMNS_MAX,
	};

	measure(&layout, list, rows);
	fit(&layout);
	write_titles(&layout);
	for (size_t row = 0; row < rows; row++)
		write_row(&layout, json_array_get(list, row));
	write_remark(&layout, size - rows);
}

int table_finish(void)
{
	if (fflush(stdout) == 0)
		return 0;
	log_error(CTL_TAG, "the table could not be written: %s", strerror(errno));
	return 1;
}

int table_print(const json_t *list, const struct column *columns, size_t columns_count)
{
	struct terminal terminal;

	terminal_look(&terminal);
	table_write(stdout, &terminal, list, columns, columns_count, 0);
	return table_finish();
}
