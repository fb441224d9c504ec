/*
 * varlink messages on a byte stream: JSON objects, each ended by one NUL byte, fds beside them
 * (https://varlink.org/Method-Call, systemd's sd-varlink for fds). Framing here is pure: bytes in, messages out.
 */
#pragma once

#include "base/cleanup.h"
#include "base/fdpass.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define VARLINK_MESSAGE_MAX (64u << 10) /* bytes with the NUL; longer ones end the connection */
#define VARLINK_DEPTH_MAX   16		/* nesting of a message's JSON */

static inline void cleanup_json_decref(json_t **value)
{
	json_decref(*value);
}
#define cleanup_json __attribute__((__cleanup__(cleanup_json_decref)))

/*
 * The receiving half of a connection: gathers bytes and fds and gives out whole messages. fds belong to the message in
 * whose bytes they arrived (the kernel never merges stream data across an SCM_RIGHTS boundary, unix(7)).
 */
struct varlink_input;
DEFINE_CLEANUP(struct varlink_input, varlink_input_free)

int varlink_input_new(struct varlink_input **ret_input);
void varlink_input_free(struct varlink_input *input);

/*
 * Adds received bytes and takes over the fds in *fds (on failure too). -EMSGSIZE: a message is longer than
 * VARLINK_MESSAGE_MAX; -EBADMSG: more than FD_PASS_MAX fds for one message, or fds without a byte. Then the input is of
 * no more use.
 */
int varlink_input_feed(struct varlink_input *input, const void *bytes, size_t size,
	struct fd_list *fds);

/* True while a message has begun and not ended: its sender is being waited for. */
bool varlink_input_is_partial(const struct varlink_input *input);

/*
 * The next whole message. Returns 1 and a new reference to a JSON object with its fds (the caller's); 0 when there is
 * none yet; -EBADMSG when it is no JSON object (duplicate keys and deeper than VARLINK_DEPTH_MAX included).
 */
int varlink_input_next(struct varlink_input *input, json_t **ret_message, struct fd_list *ret_fds);

/* A call as the peer sent it. Pointers live as long as message. */
struct varlink_call {
	const char *method;	/* "org.vmnet.Broker.AcquireNetwork" */
	json_t *parameters;	/* borrowed; NULL when left out */
	bool oneway;
	bool more;
};

/* -EBADMSG when the object is no call: no method, wrong types, unknown keys are let pass as varlink demands. */
int varlink_call_decode(json_t *message, struct varlink_call *ret_call);

/* Message as bytes with its NUL, to be freed. -EMSGSIZE when longer than VARLINK_MESSAGE_MAX. */
int varlink_encode(json_t *message, char **ret_bytes, size_t *ret_size);

/* New messages; parameters is stolen, NULL means none. NULL only when memory is out. */
json_t *varlink_make_call(const char *method, json_t *parameters);
json_t *varlink_make_reply(json_t *parameters);
json_t *varlink_make_error(const char *error, json_t *parameters);
