/* One cell of a table. */
#pragma once

#include "ctl/table.h"

#define CELL_SIZE 320

/* What a value says, for people, into cell (CELL_SIZE bytes); not yet cleaned. NULL is "-". */
void cell_format(enum cell_kind kind, const json_t *value, char *cell);

bool cell_is_number(enum cell_kind kind);

/* The terminal's order for its color; empty: none. */
const char *cell_color(enum cell_kind kind, const json_t *value);
