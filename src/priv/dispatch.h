/*
 * Requests in, replies out: each one validated again, done by the module that can, and always
 * answered.
 */
#pragma once

#include "base/fdpass.h"
#include "priv/captures.h"
#include "priv/dnsmasq.h"
#include "priv/links.h"
#include "priv/outcome.h"
#include "priv/verbs.h"

#include <stdint.h>

/* What the verbs work on. */
struct priv_context {
	struct links *links;
	struct dnsmasq_table *dnsmasq;
	struct captures *captures;
	uint32_t instance;
	bool is_rootless; /* the way out is pasta's */
};

/* "create-bridge" and so on; "unknown" for numbers that are no verb. For the log. */
const char *verb_to_text(uint32_t verb);

/*
 * Does what size bytes of a request ask for and fills reply, whatever they are. Takes the request's
 * fds over and closes them. ret_outcome, which the caller has initialised, holds the reply's fds;
 * none on failure. Returns reply->result.
 */
int verbs_answer(struct priv_context *context, const void *bytes, size_t size,
	struct fd_list *request_fds, struct verb_reply *reply, struct verb_outcome *ret_outcome);

/*
 * Receives one request and sends its reply. Waits for neither. Returns 1 when one was answered; 0
 * at the end of the stream (an empty message counts as one: the front sends none); -EAGAIN when
 * nothing is there; another negative errno when the reply could not be sent (-ENOBUFS: there was no
 * room for it): the front no longer reads and may be ended.
 */
int verbs_serve(struct priv_context *context, int socket, struct verb_reply *ret_reply);

/* A bucket of VERB_BURST requests that fills within a second. Zero it first: it starts full. */
struct verb_pace {
	uint64_t full_at_us; /* CLOCK_MONOTONIC */
};

/*
 * Takes one request out of the bucket and returns 0, or, when it is empty, the microseconds to wait
 * before asking again. now_us is CLOCK_MONOTONIC in microseconds.
 */
uint64_t verb_pace_take(struct verb_pace *pace, uint64_t now_us);
