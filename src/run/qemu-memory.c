#include "run/qemu-memory.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEBIBYTE        (UINT64_C(1) << 20)
#define DEFAULT_SIZE    (128 * MEBIBYTE)
#define SIZE_ALIGNMENT  UINT64_C(8192) /* to which QEMU rounds -m up */
#define SIZE_LIMIT      (UINT64_C(1) << 60)
#define BACKEND_PREFIX  "memory-backend-"
#define EXAMPLE_OBJECT  "-object memory-backend-memfd,id=mem,size=SIZE,share=on"
#define EXAMPLE_MACHINE "-machine memory-backend=mem"

/* A piece of the command line. */
struct text {
	const char *start;
	size_t length;
};

/* Of "key=value,key=value"; a first value may stand without its key. */
struct pair {
	struct text key; /* empty: there was no '=' */
	struct text value;
};

static bool text_is(struct text text, const char *expected)
{
	return text.length == strlen(expected) && strncmp(text.start, expected, text.length) == 0;
}

static bool texts_equal(struct text a, struct text b)
{
	return a.length == b.length && memcmp(a.start, b.start, a.length) == 0;
}

/* Returns what follows the pair, NULL behind the last. A comma that is part of a value is written
 * twice; here that splits the value, which matters to no key that is looked for. */
static const char *read_pair(const char *list, struct pair *ret_pair)
{
	size_t length = strcspn(list, ",");
	const char *equals = memchr(list, '=', length);
	struct pair pair = {.value = {list, length}};

	if (equals) {
		pair.key = (struct text){list, (size_t)(equals - list)};
		pair.value = (struct text){equals + 1, length - pair.key.length - 1};
	}
	*ret_pair = pair;
	return list[length] ? list + length + 1 : NULL;
}

/* As in QEMU the last of several counts. implied is the key of a first value without one. */
static bool find_value(
	const char *list, const char *key, const char *implied, struct text *ret_value)
{
	bool is_first = true;
	bool found = false;
	struct pair pair;

	while (list) {
		list = read_pair(list, &pair);
		if (is_first && pair.key.length == 0 && implied && strcmp(key, implied) == 0)
			pair.key = (struct text){key, strlen(key)};
		if (text_is(pair.key, key)) {
			*ret_value = pair.value;
			found = true;
		}
		is_first = false;
	}
	return found;
}

/* Steps from option to option with a value. Returns the value of the next one of that name behind
 * *position, or NULL. QEMU takes "-" and "--". */
static const char *next_option(char *const *command, const char *name, size_t *position)
{
	for (size_t i = *position + 1; command[i] && command[i + 1]; i++) {
		const char *word = command[i];

		if (word[0] != '-')
			continue;
		word += word[1] == '-' ? 2 : 1;
		if (strcmp(word, name) != 0)
			continue;
		*position = i + 1;
		return command[i + 1];
	}
	return NULL;
}

static bool has_option(char *const *command, const char *name)
{
	size_t position = 0;

	return next_option(command, name, &position) != NULL;
}

/* The options that may say which object the guest's memory is, and their keys for it. */
static const struct {
	const char *option;
	const char *key;
} arrangements[] = {
	{"machine", "memory-backend"},
	{"M", "memory-backend"},
	{"numa", "memdev"},
};

/* Whether an object is the guest's memory; with id NULL: any object. */
static bool is_guest_memory(char *const *command, const struct text *id)
{
	for (size_t i = 0; i < array_length(arrangements); i++) {
		const char *list;
		size_t position = 0;
		struct text value;

		while ((list = next_option(command, arrangements[i].option, &position)))
			if (find_value(list, arrangements[i].key, NULL, &value) &&
				(!id || texts_equal(value, *id)))
				return true;
	}
	return false;
}

/* memfd and shm objects are shared unless told not to be. */
static bool is_shared(const char *object, struct text type)
{
	struct text share;

	if (!find_value(object, "share", NULL, &share))
		return text_is(type, BACKEND_PREFIX "memfd") || text_is(type, BACKEND_PREFIX "shm");
	return text_is(share, "on") || text_is(share, "yes") || text_is(share, "true") ||
	       text_is(share, "y");
}

/* QEMU starts with private memory all the same, and no frame ever passes. Of objects in JSON the
 * user is trusted to know. */
static int check_objects(char *const *command, char *error)
{
	const char *object;
	size_t position = 0;

	while ((object = next_option(command, "object", &position))) {
		struct text type;
		struct text id;

		if (!find_value(object, "qom-type", "qom-type", &type) ||
			!find_value(object, "id", NULL, &id))
			continue;
		if (type.length < strlen(BACKEND_PREFIX) ||
			strncmp(type.start, BACKEND_PREFIX, strlen(BACKEND_PREFIX)) != 0)
			continue;
		if (!is_guest_memory(command, &id) || is_shared(object, type))
			continue;
		snprintf(error, QEMU_MEMORY_ERROR_SIZE,
			"--attach vhost-user needs shared memory: in QEMU's options write -object "
			"%.200s,share=on",
			object);
		return -EINVAL;
	}
	return 0;
}

static const struct {
	const char *option;
	const char *advice;
} unshared[] = {
	{"mem-path",
		"-object "
		"memory-backend-file,id=mem,mem-path=PATH,size=SIZE,share=on " EXAMPLE_MACHINE},
	{"numa", EXAMPLE_OBJECT " -numa node,memdev=mem, one object for each node"},
};

static int check_unshared(char *const *command, char *error)
{
	for (size_t i = 0; i < array_length(unshared); i++) {
		if (!has_option(command, unshared[i].option))
			continue;
		snprintf(error, QEMU_MEMORY_ERROR_SIZE,
			"--attach vhost-user needs shared memory, which QEMU's option -%s does not "
			"give: write %s",
			unshared[i].option, unshared[i].advice);
		return -EINVAL;
	}
	return 0;
}

/* Returns 0 for what is no unit. */
static uint64_t read_unit(const char *unit, size_t length)
{
	static const char units[] = "bkmgtpe";
	const char *found;

	if (length == 0)
		return MEBIBYTE;
	found = length == 1 ? strchr(units, tolower((unsigned char)*unit)) : NULL;
	return found ? UINT64_C(1) << 10 * (found - units) : 0;
}

/* "2G", "512", "1.5g"; hexadecimal numbers mean other things in other versions of QEMU. */
static int read_size(struct text text, uint64_t *ret_bytes)
{
	size_t digits = 0;
	uint64_t unit;
	double size;

	while (digits < text.length &&
		(isdigit((unsigned char)text.start[digits]) || text.start[digits] == '.'))
		digits++;
	if (digits == 0 || text.start[0] == '.')
		return -EINVAL;
	unit = read_unit(text.start + digits, text.length - digits);
	size = strtod(text.start, NULL) * (double)unit;
	if (unit == 0 || size >= (double)SIZE_LIMIT)
		return -EINVAL;
	*ret_bytes = ((uint64_t)size + SIZE_ALIGNMENT - 1) / SIZE_ALIGNMENT * SIZE_ALIGNMENT;
	return 0;
}

static int find_size(char *const *command, uint64_t *ret_bytes, char *error)
{
	uint64_t bytes = 0;
	const char *list;
	size_t position = 0;
	struct text size;

	while ((list = next_option(command, "m", &position))) {
		if (!find_value(list, "size", "size", &size))
			continue;
		if (read_size(size, &bytes) < 0) {
			snprintf(error, QEMU_MEMORY_ERROR_SIZE,
				"--attach vhost-user must know the size of the guest's memory: "
				"write QEMU's option -m %.100s as in -m 512M or -m 2G",
				list);
			return -EINVAL;
		}
	}
	*ret_bytes = bytes ? bytes : DEFAULT_SIZE;
	return 0;
}

int qemu_memory_read(char *const *command, struct qemu_memory *ret_memory, char *error)
{
	struct qemu_memory memory = {.is_arranged = is_guest_memory(command, NULL)};
	int result;

	if (memory.is_arranged)
		result = check_objects(command, error);
	else
		result = check_unshared(command, error);
	if (result == 0 && !memory.is_arranged)
		result = find_size(command, &memory.size_bytes, error);
	if (result == 0)
		*ret_memory = memory;
	return result;
}
