/*
 * varlink messages on a byte stream: JSON objects, each ended by one NUL byte, fds beside them
 * (https://varlink.org/Method-Call, systemd's sd-varlink for fds). Framing here is pure: bytes in,
 * messages out.
 */
#pragma once

#include "base/cleanup.h"
#include "base/fdpass.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define VARLINK_MESSAGE_MAX (64u << 10) /* bytes with the NUL; longer ones end the connection */
#define VARLINK_DEPTH_MAX   16          /* nesting of a message's JSON */

static inline void cleanup_json_decref(json_t **value)
{
	json_decref(*value);
}
#define cleanup_json __attribute__((__cleanup__(cleanup_json_decref)))

/*
 * The receiving half of a connection: gathers bytes and fds and gives out whole messages. fds
 * belong to the message that holds the last byte they arrived with: one recvmsg() may put bytes
 * sent earlier in front of theirs, but never any that were sent later behind them (unix(7)). So a
 * sender sends each message that has fds with a sendmsg() of its own.
 */
struct varlink_input;

/* An empty one, the caller's; -ENOMEM. */
int varlink_input_new(struct varlink_input **ret_input);

/* Closes the fds that nobody took. NULL is allowed. */
void varlink_input_free(struct varlink_input *input);
DEFINE_CLEANUP(struct varlink_input, varlink_input_free)

/*
 * Adds received bytes and takes over the fds in *fds (on failure too). -EMSGSIZE: a message is
 * longer than VARLINK_MESSAGE_MAX; -EBADMSG: more than FD_PASS_MAX fds for one message, or fds
 * without a byte. Then the input is of no more use.
 */
int varlink_input_feed(
	struct varlink_input *input, const void *bytes, size_t size, struct fd_list *fds);

/* True while a message has begun and not ended: its sender is being waited for. */
bool varlink_input_is_partial(const struct varlink_input *input);

/*
 * The next whole message. Returns 1 and a new reference to a JSON object with its fds (the
 * caller's); 0 when there is none yet; -EBADMSG when it is no JSON object (duplicate keys and
 * deeper than VARLINK_DEPTH_MAX included), and its fds have been closed.
 */
int varlink_input_next(struct varlink_input *input, json_t **ret_message, struct fd_list *ret_fds);

/* A call as the peer sent it. Pointers live as long as message. */
struct varlink_call {
	const char *method; /* "org.vmnet.Broker.AcquireNetwork" */
	json_t *parameters; /* borrowed; NULL when left out */
	bool oneway;
	bool more;
};

/* -EBADMSG when the object is no call: no method, or a wrong type. Unknown keys are let pass, as
 * varlink demands. */
int varlink_call_decode(json_t *message, struct varlink_call *ret_call);

/* An answer as the service sent it. Pointers live as long as message. */
struct varlink_reply {
	const char *error;  /* "org.vmnet.Broker.NotFound"; NULL on success */
	json_t *parameters; /* borrowed; NULL when left out */
	bool continues;
};

/* -EBADMSG when a member has a wrong type. Unknown keys are let pass. */
int varlink_reply_decode(json_t *message, struct varlink_reply *ret_reply);

/* Message as bytes with its NUL, to be freed. -EMSGSIZE when longer than VARLINK_MESSAGE_MAX;
 * -ENOMEM. */
int varlink_encode(json_t *message, char **ret_bytes, size_t *ret_size);

/*
 * New messages; parameters is stolen (on failure too), NULL means none. NULL when memory is out or
 * the name is no UTF-8.
 */
json_t *varlink_make_call(const char *method, json_t *parameters);
json_t *varlink_make_reply(json_t *parameters);
json_t *varlink_make_error(const char *error, json_t *parameters);
