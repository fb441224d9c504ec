#include "broker/json-members.h"

#include <errno.h>
#include <string.h>

#include "wire/varlink.h"

static const char *skip_blanks(const char *at, const char *end)
{
	while (at < end && memchr(" \t\r\n", *at, 4))
		at++;
	return at;
}

/* at is the opening quote; returns what is behind the closing one. */
static const char *skip_string(const char *at, const char *end)
{
	for (at++; at < end && *at != '"'; at++)
		if (*at == '\\')
			at++;
	return at < end ? at + 1 : end;
}

/* Returns what is behind a value of any type: the ',' or '}' of the object around it. */
static const char *skip_value(const char *at, const char *end)
{
	size_t depth = 0;

	while (at < end) {
		if (*at == '"') {
			at = skip_string(at, end);
			continue;
		}
		if (*at == '{' || *at == '[')
			depth++;
		else if (depth == 0 && (*at == ',' || *at == '}'))
			break;
		else if (*at == '}' || *at == ']')
			depth--;
		at++;
	}
	return at;
}

int json_members_init(struct json_members *members, const char *bytes, size_t size)
{
	const char *end = bytes + size;
	const char *at = skip_blanks(bytes, end);

	if (at == end || *at != '{')
		return -EINVAL;
	members->next = at + 1;
	members->end = end;
	return 0;
}

bool json_members_next(struct json_members *members, struct json_member *ret_member)
{
	const char *end = members->end;
	const char *at = skip_blanks(members->next, end);
	struct json_member member;

	if (at < end && *at == ',')
		at = skip_blanks(at + 1, end);
	if (at >= end || *at != '"')
		return false;
	member.key = at;
	at = skip_string(at, end);
	member.key_size = (size_t)(at - member.key);
	at = skip_blanks(at, end);
	if (at >= end || *at != ':')
		return false;
	member.value = skip_blanks(at + 1, end);
	at = skip_value(member.value, end);
	member.value_size = (size_t)(at - member.value);
	members->next = at;
	*ret_member = member;
	return true;
}

char *json_member_name(const struct json_member *member)
{
	cleanup_json json_t *key = json_loadb(member->key, member->key_size, JSON_DECODE_ANY, NULL);

	return key ? strdup(json_string_value(key)) : NULL;
}
