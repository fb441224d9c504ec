/* Lists of JSON objects as a table for people. */
#pragma once

#include <jansson.h>
#include <stddef.h>

struct column {
	const char *title;
	const char *member; /* what of each object stands in it */
};

/*
 * Prints the objects of list, one a line below the titles, aligned. Texts as they are, numbers in
 * digits, booleans as yes and no; absent members are "-". 0, or 1 when stdout takes no more: an
 * exit status.
 */
int table_print(const json_t *list, const struct column *columns, size_t columns_count);
