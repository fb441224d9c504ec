/*
 * What a verb came to, beside its result: filled by the modules that do the work, sent by verbs.c.
 */
#pragma once

#include "base/fdpass.h"
#include "priv/verbs.h"

struct verb_outcome {
	uint32_t value;                /* of the reply */
	struct fd_list fds;            /* of the reply; the outcome owns them */
	char detail[VERB_DETAIL_SIZE]; /* of the reply; empty on success */
};

/* Nothing said, no fds. */
void outcome_init(struct verb_outcome *outcome);

/* Closes the fds. */
void outcome_done(struct verb_outcome *outcome);

#define cleanup_outcome __attribute__((__cleanup__(outcome_done)))

/* Gives an fd to the reply; taken over on failure too. -ENOSPC when it can carry no more. */
int outcome_add_fd(struct verb_outcome *outcome, int fd);

/*
 * Says what failed, in one line (control characters become blanks, the end may be cut). Returns
 * error, a negative errno, so that a failure is one statement.
 */
int outcome_fail(struct verb_outcome *outcome, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
