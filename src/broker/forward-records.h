/*
 * Forwards as small JSON files: what outlives the broker of those that were not configured.
 *
 *     STATE/forwards/ID.json      a pinned one
 *     RUNTIME/forwards/ID.json    one that a connection holds
 */
#pragma once

#include "wire/messages.h"

#include <sys/types.h>

struct forward_record {
	uint32_t id;
	char network[NETWORK_NAME_SIZE];
	struct forward_spec spec;
	enum forward_origin origin;
	uid_t uid; /* who asked for it; 0 for configured ones */
};

struct forward_records;

/* Opens both directories, which belong to the caller's user, and makes what is missing below them.
 * Negative errno. */
int forward_records_open(const char *state_directory, const char *runtime_directory,
	struct forward_records **ret_records);

/* NULL is allowed. */
void forward_records_close(struct forward_records *records);

/* Writes the record of a held or pinned forward; a pinned one is on the disk when this returns.
 * Negative errno. */
int forward_records_save(struct forward_records *records, const struct forward_record *record);

/* Not being there is no error. */
int forward_records_remove(struct forward_records *records, const struct forward_record *record);

/*
 * Visits every record. One that cannot be understood is renamed to ID.json.corrupt and passed over.
 * Negative errno of the directories, or what visit returned when that was negative.
 */
int forward_records_visit(struct forward_records *records,
	int (*visit)(void *context, const struct forward_record *record), void *context);
