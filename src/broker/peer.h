/*
 * One client's connection: bytes in, calls out to the methods, replies back in the order of the
 * calls. A peer can neither block the broker nor grow without limit in it.
 */
#pragma once

#include "broker/credentials.h"
#include "broker/failure.h"
#include "wire/varlink.h"

#include <sys/types.h>
#include <systemd/sd-event.h>

#define PEER_REQUEST_TIMEOUT_MS 5000         /* from a request's first byte to its last */
#define PEER_REPLY_TIMEOUT_MS   30000        /* without a byte taken by the peer */
#define PEER_OUTPUT_MAX         (256u << 10) /* bytes of replies that wait for the peer */
#define PEER_OUTPUT_FDS_MAX     64           /* fds in them */

struct server;
struct session;
struct peer_output;

/* The fields belong to peer.c; server.c keeps the list, methods.c the session. */
struct peer {
	struct server *server;
	struct peer *next;
	struct credentials credentials; /* owned */
	uid_t uid;
	pid_t pid;
	char tag[24]; /* "peer PID", for the log */
	struct session *session;
	int fd;
	struct varlink_input *input;
	bool input_ended;    /* nothing more is read; it is closed when all is answered */
	bool waiting;        /* a call waits for its reply: the next one is not looked at */
	bool oneway;         /* of the call being answered */
	bool request_timing; /* the request timer runs */
	bool streaming;      /* the call being answered has many answers, at the peer's own pace */
	void (*drained)(void *context); /* of streaming */
	void *drained_context;
	bool dead; /* closed; the server frees it in this turn of the loop */
	struct peer_output *output_first, *output_last;
	size_t output_bytes, output_fds;
	sd_event_source *io;
	sd_event_source *resume;
	sd_event_source *request_timer;
	sd_event_source *reply_timer;
};

/* Takes fd and the credentials' groups over (on failure too). Negative errno. */
int peer_new(struct server *server, sd_event *event, int fd, struct credentials *credentials,
	struct peer **ret_peer);

/* Releases all it holds. NULL is allowed. */
void peer_free(struct peer *peer);

/* Ends the connection; the server frees the peer soon. */
void peer_close(struct peer *peer);

/* The call's handler returns without a reply; one of the functions below gives it later. */
void peer_defer(struct peer *peer);

/*
 * Answers the current call, and lets the next one come. parameters is stolen and may be NULL only
 * if memory is out, which ends the connection; fds are taken over.
 */
void peer_reply(struct peer *peer, json_t *parameters, const int *fds, size_t fds_count);
void peer_reply_error(struct peer *peer, const char *error, json_t *parameters);

/*
 * Begins the answers of a call with varlink's "more": any number of peer_stream(), whenever there
 * is something to say. The peer may read as slowly as it likes, and no further call of it is looked
 * at until it hangs up. drained is called from the loop when it has taken all of what waited.
 */
void peer_start_stream(struct peer *peer, void (*drained)(void *context), void *context);

/* One of them. parameters is stolen; NULL (memory is out) ends the connection. */
void peer_stream(struct peer *peer, json_t *parameters);

/* Bytes that wait for the peer, which stay far below PEER_OUTPUT_MAX if that is looked at. */
size_t peer_backlog(const struct peer *peer);

/* Answers with one of our own errors, and logs it. */
void peer_fail(struct peer *peer, const struct failure *failure);
