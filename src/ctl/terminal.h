/* What stdout is: a person's terminal, or something that programs read. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct terminal {
	bool is_one;
	bool has_color; /* a terminal that does, and nobody said no: https://no-color.org */
	int columns;    /* 0: as many as one likes */
	int rows;       /* as columns */
};

/* Looks afresh: its size may have changed. Nothing but a terminal has color or a size. */
void terminal_look(struct terminal *ret_terminal);

/* Once, at the start of the program: how bytes beyond ASCII are read. A terminal's locale decides
 * what it can show; anything else is given UTF-8. */
void terminal_set_locale(void);

/*
 * A copy that is safe to show, to be freed; NULL when memory is out. What moves the cursor, gives
 * orders to the terminal, reorders text or is no character becomes '?': names and descriptions are
 * other people's.
 */
char *terminal_clean(const char *text);

/* How many columns a text of terminal_clean() takes. */
int terminal_width(const char *text);

/* Cuts such a text to width columns (at least 1), of which the last one shows that it was cut. The
 * text needs room for TERMINAL_CUT_ROOM bytes more than it has. */
#define TERMINAL_CUT_ROOM 4
void terminal_cut(char *text, int width);
