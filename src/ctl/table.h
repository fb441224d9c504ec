/* Lists of JSON objects as tables for people. */
#pragma once

#include "ctl/terminal.h"

#include <jansson.h>
#include <stdio.h>

/* How a value is shown. What is absent is "-", whatever it would have been. */
enum cell_kind {
	CELL_PLAIN,    /* texts as they are, numbers in digits, booleans as yes and no */
	CELL_RUNNING,  /* a boolean that is good news */
	CELL_NUMBER,   /* digits, aligned to the right */
	CELL_WHOLE,    /* the same of what need not be whole */
	CELL_TROUBLE,  /* digits; bad news unless it is 0 */
	CELL_BYTES,    /* "1.2 MB" */
	CELL_BIT_RATE, /* of bytes a second: "9.6 Mbit/s" */
	CELL_DURATION, /* of seconds: "9m58s" */
	CELL_KIND_COUNT,
};

struct column {
	const char *title;
	const char *member; /* what of each object stands in it; "a.b" is b of its a */
	enum cell_kind kind;
	bool can_cut; /* long texts may lose their ends on a narrow terminal */
	int rank;     /* columns of the highest rank are the first to go there; 0: it stays */
};

/*
 * Prints the objects of list, one a line below the titles, aligned, in the terminal's width where
 * stdout is one. 0, or 1 when stdout takes no more: an exit status.
 */
int table_print(const json_t *list, const struct column *columns, size_t columns_count);

/* The same into a stream, for a terminal as it was looked at; of the objects at most rows_max (0:
 * all), and how many more there are. */
void table_write(FILE *stream, const struct terminal *terminal, const json_t *list,
	const struct column *columns, size_t columns_count, size_t rows_max);

/* 0, or 1 when stdout took not all that was written to it, which has been said then. */
int table_finish(void);
