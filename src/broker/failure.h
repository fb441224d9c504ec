/*
 * Why a request could not be met: the error a peer gets, with a text a person can act on. Filled in
 * by the layer that knows what was tried, carried up unchanged.
 */
#pragma once

#include "wire/messages.h"

struct failure {
	enum broker_error error;
	char reason[BROKER_REASON_SIZE];
};

/* Fills in *failure (a too long text is cut) and returns -ECANCELED, for "return failure_set(...)".
 */
int failure_set(struct failure *failure, enum broker_error error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
