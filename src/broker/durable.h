/*
 * Files that are whole, or not there at all.
 */
#pragma once

#include "wire/varlink.h"

#include <stdbool.h>
#include <stddef.h>

#define DURABLE_NAME_SIZE 128
#define DURABLE_FILE_MAX  (512u << 10) /* bytes read at most */

/* Suffix of a write that has not ended; such files can be removed at start. */
#define DURABLE_UNFINISHED ".new"

/*
 * Replaces the file name in directory: written beside it, fsync(2), rename(2), fsync of the
 * directory. mode is the file's. Negative errno, then the old one is untouched.
 */
int durable_write(
	int directory, const char *name, const char *bytes, size_t size, unsigned int mode);

/* The same with a JSON value, one line. */
int durable_write_json(int directory, const char *name, const json_t *value);

/*
 * The same two without fsync: whole, or the old one, also after a crash of the program, but perhaps
 * neither after a power cut. For what describes objects that a power cut ends.
 */
int durable_replace(
	int directory, const char *name, const char *bytes, size_t size, unsigned int mode);
int durable_replace_json(int directory, const char *name, const json_t *value);

/*
 * The JSON object in the file: a new reference. -ENOENT when there is none; -EBADMSG when it is not
 * a regular file with a JSON object.
 */
int durable_read_json(int directory, const char *name, json_t **ret_value);

/* Renames the file to NAME.corrupt, over an older one. */
int durable_set_aside(int directory, const char *name);

/* Removes the file for good; not being there is no error. */
int durable_remove(int directory, const char *name);

/* The same without fsync: after a power cut it may be there again. */
int durable_drop(int directory, const char *name);

/* Opens the directory name in the directory parent, and makes it first if need be, for its owner
 * alone. Negative errno. */
int durable_open_below(const char *parent, const char *name, int *ret_fd);

/* Splits "STEM.SUFFIX"; false when the suffix is another, or stem (size bytes) has no room. */
bool durable_split_name(const char *file, const char *suffix, char *stem, size_t size);

/* Calls visit for every file of the directory until one fails. Returns the sum of what it returned,
 * or negative errno. */
int durable_visit(int directory, int (*visit)(void *context, const char *file), void *context);
