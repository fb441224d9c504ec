#include "ctl/cell.h"

#include "base/cleanup.h"

#include <assert.h>

#define GREEN  "\033[32m"
#define YELLOW "\033[33m"

static void format_plain(const json_t *value, char *cell)
{
	if (json_is_string(value))
		snprintf(cell, CELL_SIZE, "%s", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(cell, CELL_SIZE, "%lld", (long long)json_integer_value(value));
	else
		snprintf(cell, CELL_SIZE, "%s", json_is_true(value) ? "yes" : "no");
}

/* Three digits and a prefix of powers of a thousand. */
static void format_scaled(double number, const char *unit, char *cell)
{
	static const char *const prefixes[] = {"", "k", "M", "G", "T", "P"};
	size_t power = 0;

	while (number >= 999.95 && power + 1 < array_length(prefixes)) {
		number /= 1000;
		power++;
	}
	snprintf(cell, CELL_SIZE, power > 0 && number < 99.95 ? "%.1f %s%s" : "%.0f %s%s", number,
		prefixes[power], unit);
}

static void format_whole(const json_t *value, char *cell)
{
	snprintf(cell, CELL_SIZE, "%.0f", json_number_value(value));
}

static void format_bytes(const json_t *value, char *cell)
{
	format_scaled(json_number_value(value), "B", cell);
}

static void format_bit_rate(const json_t *value, char *cell)
{
	format_scaled(json_number_value(value) * 8, "bit/s", cell);
}

static void format_duration(const json_t *value, char *cell)
{
	long long seconds = json_integer_value(value);

	if (seconds >= 3600)
		snprintf(cell, CELL_SIZE, "%lldh%02lldm", seconds / 3600, seconds / 60 % 60);
	else if (seconds >= 60)
		snprintf(cell, CELL_SIZE, "%lldm%02llds", seconds / 60, seconds % 60);
	else
		snprintf(cell, CELL_SIZE, "%llds", seconds);
}

static const char *color_running(const json_t *value)
{
	return json_is_true(value) ? GREEN : "";
}

static const char *color_trouble(const json_t *value)
{
	return json_number_value(value) > 0 ? YELLOW : "";
}

static const struct {
	void (*format)(const json_t *value, char *cell);
	const char *(*color)(const json_t *value);
	bool is_number;
} kinds[] = {
	[CELL_PLAIN] = {format_plain, NULL, false},
	[CELL_RUNNING] = {format_plain, color_running, false},
	[CELL_NUMBER] = {format_plain, NULL, true},
	[CELL_TROUBLE] = {format_plain, color_trouble, true},
	[CELL_WHOLE] = {format_whole, NULL, true},
	[CELL_BYTES] = {format_bytes, NULL, true},
	[CELL_BIT_RATE] = {format_bit_rate, NULL, true},
	[CELL_DURATION] = {format_duration, NULL, true},
};
static_assert(array_length(kinds) == CELL_KIND_COUNT, "every kind is described");

void cell_format(enum cell_kind kind, const json_t *value, char *cell)
{
	if (!value || json_is_null(value))
		snprintf(cell, CELL_SIZE, "-");
	else
		kinds[kind].format(value, cell);
}

bool cell_is_number(enum cell_kind kind)
{
	return kinds[kind].is_number;
}

const char *cell_color(enum cell_kind kind, const json_t *value)
{
	return value && kinds[kind].color ? kinds[kind].color(value) : "";
}
