/*
 * The members of a JSON object one by one, as the text has them: jansson keeps neither a key that
 * is given twice nor the order across files, and a configuration needs both to blame the right
 * network. Pure; works only on text that jansson has accepted before.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct json_members {
	const char *next;
	const char *end;
};

/* Pointers into the text. */
struct json_member {
	const char *key; /* with its quotes */
	size_t key_size;
	const char *value;
	size_t value_size;
};

/* bytes is valid JSON, and stays the caller's. -EINVAL when it is not an object. */
int json_members_init(struct json_members *members, const char *bytes, size_t size);

/* The next member; false behind the last one. */
bool json_members_next(struct json_members *members, struct json_member *ret_member);

/* The key without quotes and escapes, to be freed. NULL when memory is out. */
char *json_member_name(const struct json_member *member);
