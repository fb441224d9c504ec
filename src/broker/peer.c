#include "broker/peer.h"

#include "base/cleanup.h"
#include "base/linger.h"
#include "base/log.h"
#include "broker/events.h"
#include "broker/methods.h"
#include "broker/server.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#define READ_SIZE 16384

/* One message on its way out. */
struct peer_output {
	struct peer_output *next;
	char *bytes;
	size_t size, sent;
	int fds[FD_PASS_MAX]; /* owned; they go with the first byte */
	size_t fds_count;
};

static void close_fds(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		fd_close(fds[i]);
}

static void free_output(struct peer_output *output)
{
	close_fds(output->fds, output->fds_count);
	free(output->bytes);
	free(output);
}

void peer_close(struct peer *peer)
{
	if (peer->dead)
		return;
	peer->dead = true;
	sd_event_source_set_enabled(peer->io, SD_EVENT_OFF);
	sd_event_source_set_enabled(peer->resume, SD_EVENT_OFF);
	sd_event_source_set_enabled(peer->request_timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(peer->reply_timer, SD_EVENT_OFF);
	server_sweep(peer->server);
}

static void drop_first_output(struct peer *peer)
{
	struct peer_output *output = peer->output_first;

	peer->output_first = output->next;
	if (!peer->output_first)
		peer->output_last = NULL;
	free_output(output);
}

void peer_free(struct peer *peer)
{
	if (!peer)
		return;
	session_free(peer->session);
	while (peer->output_first)
		drop_first_output(peer);
	sd_event_source_disable_unref(peer->io);
	sd_event_source_disable_unref(peer->resume);
	sd_event_source_disable_unref(peer->request_timer);
	sd_event_source_disable_unref(peer->reply_timer);
	linger_limit();
	varlink_input_free(peer->input);
	fd_close(peer->fd);
	linger_unlimit();
	credentials_done(&peer->credentials);
	free(peer);
}
DEFINE_CLEANUP(struct peer, peer_free)

static void start_timer(sd_event_source *timer, uint64_t delay_ms)
{
	sd_event_source_set_time_relative(timer, delay_ms * 1000);
	sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

/* Whom a stream is for may be stopped, or look at a page of it for long. */
static void expect_progress(struct peer *peer)
{
	if (!peer->streaming)
		start_timer(peer->reply_timer, PEER_REPLY_TIMEOUT_MS);
}

/* Sends what the socket takes now. */
static void flush_output(struct peer *peer)
{
	while (peer->output_first) {
		struct peer_output *output = peer->output_first;
		ssize_t sent = fd_send(peer->fd, output->bytes + output->sent,
			output->size - output->sent, output->fds, output->fds_count);

		if (sent == -EAGAIN)
			return;
		if (sent < 0) {
			log_debug(peer->tag, "took no reply: %s", strerror((int)-sent));
			peer_close(peer);
			return;
		}
		expect_progress(peer);
		close_fds(output->fds, output->fds_count);
		peer->output_fds -= output->fds_count;
		output->fds_count = 0;
		output->sent += (size_t)sent;
		peer->output_bytes -= (size_t)sent;
		if (output->sent == output->size)
			drop_first_output(peer);
	}
	sd_event_source_set_enabled(peer->reply_timer, SD_EVENT_OFF);
}

/* Makes what the loop watches fit what is wanted next; closes when nothing is. */
static void update_interest(struct peer *peer, bool new_request)
{
	uint32_t events = 0;

	if (peer->dead)
		return;
	if (peer->input_ended && !peer->waiting && !peer->output_first) {
		peer_close(peer);
		return;
	}
	if (!peer->waiting && !peer->input_ended)
		events |= EPOLLIN;
	if (peer->output_first)
		events |= EPOLLOUT;
	sd_event_source_set_io_events(peer->io, events);
	if (!(events & EPOLLIN) || !varlink_input_is_partial(peer->input)) {
		sd_event_source_set_enabled(peer->request_timer, SD_EVENT_OFF);
		peer->request_timing = false;
	} else if (new_request || !peer->request_timing) {
		start_timer(peer->request_timer, PEER_REQUEST_TIMEOUT_MS);
		peer->request_timing = true;
	}
}

static void queue_output(
	struct peer *peer, char *stolen_bytes, size_t size, const int *fds, size_t fds_count)
{
	struct peer_output *output = calloc(1, sizeof(*output));

	if (!output) {
		close_fds(fds, fds_count);
		free(stolen_bytes);
		peer_close(peer);
		return;
	}
	output->bytes = stolen_bytes;
	output->size = size;
	if (fds_count > 0)
		memcpy(output->fds, fds, fds_count * sizeof(*fds));
	output->fds_count = fds_count;
	if (peer->output_last)
		peer->output_last->next = output;
	else
		peer->output_first = output;
	peer->output_last = output;
	peer->output_bytes += size;
	peer->output_fds += fds_count;
	if (peer->output_bytes <= PEER_OUTPUT_MAX && peer->output_fds <= PEER_OUTPUT_FDS_MAX) {
		expect_progress(peer);
		return;
	}
	if (server_may_log(peer->server))
		log_warn(peer->tag, "was disconnected: it did not read its replies");
	peer_close(peer);
}

/* message is stolen; NULL ends the connection. */
static void send_part(struct peer *peer, json_t *stolen, const int *fds, size_t fds_count)
{
	cleanup_json json_t *message = stolen;
	char *bytes;
	size_t size;

	if (peer->dead || peer->oneway) {
		close_fds(fds, fds_count);
		return;
	}
	if (!message || varlink_encode(message, &bytes, &size) < 0) {
		close_fds(fds, fds_count);
		peer_close(peer);
		return;
	}
	queue_output(peer, bytes, size, fds, fds_count);
	if (!peer->dead)
		flush_output(peer);
	update_interest(peer, false);
}

/* The last, or only, answer of a call. */
static void send_message(struct peer *peer, json_t *stolen, const int *fds, size_t fds_count)
{
	if (peer->waiting) {
		peer->waiting = false;
		sd_event_source_set_enabled(peer->resume, SD_EVENT_ONESHOT);
	}
	send_part(peer, stolen, fds, fds_count);
}

void peer_start_stream(struct peer *peer, void (*drained)(void *context), void *context)
{
	peer->waiting = true;
	peer->streaming = true;
	peer->drained = drained;
	peer->drained_context = context;
	sd_event_source_set_enabled(peer->reply_timer, SD_EVENT_OFF);
}

void peer_stream(struct peer *peer, json_t *parameters)
{
	cleanup_json json_t *message = varlink_make_reply(parameters);

	if (message && json_object_set_new(message, "continues", json_true()) < 0)
		json_decref(take_ptr(message));
	send_part(peer, take_ptr(message), NULL, 0);
}

size_t peer_backlog(const struct peer *peer)
{
	return peer->output_bytes;
}

void peer_reply(struct peer *peer, json_t *parameters, const int *fds, size_t fds_count)
{
	send_message(peer, varlink_make_reply(parameters), fds, fds_count);
}

void peer_reply_error(struct peer *peer, const char *error, json_t *parameters)
{
	send_message(peer, varlink_make_error(error, parameters), NULL, 0);
}

void peer_fail(struct peer *peer, const struct failure *failure)
{
	if (server_may_log(peer->server))
		log_info(peer->tag, "was refused: %s", failure->reason);
	events_tell_refusal(server_registry(peer->server), peer->uid, failure);
	send_message(peer, broker_error_encode(failure->error, failure->reason), NULL, 0);
}

void peer_defer(struct peer *peer)
{
	peer->waiting = true;
}

static void refuse_garbage(struct peer *peer, const char *what)
{
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_INVALID_REQUEST, "%s", what);
	peer->input_ended = true;
	peer->oneway = false;
	peer_fail(peer, &failure);
}

static void handle_message(struct peer *peer, json_t *message, struct fd_list *fds)
{
	struct varlink_call call;

	if (varlink_call_decode(message, &call) < 0) {
		refuse_garbage(peer, "a varlink call is needed: {\"method\": ...}");
		return;
	}
	peer->oneway = call.oneway;
	methods_dispatch(peer->session, &call, fds);
}

/* Every whole message there is, until one has to wait. */
static void handle_input(struct peer *peer)
{
	bool any = false;

	while (!peer->dead && !peer->waiting && !peer->input_ended) {
		cleanup_json json_t *message = NULL;
		struct fd_list fds;
		int result;

		fd_list_init(&fds);
		linger_limit();
		result = varlink_input_next(peer->input, &message, &fds);
		linger_unlimit();
		if (result == 0)
			break;
		any = true;
		if (result < 0)
			refuse_garbage(peer, "a message that is no JSON object came");
		else
			handle_message(peer, message, &fds);
		linger_close_fds(&fds);
	}
	update_interest(peer, any);
}

static void read_input(struct peer *peer)
{
	char buffer[READ_SIZE];
	struct fd_list fds;
	ssize_t size;
	int error;

	fd_list_init(&fds);
	linger_limit();
	size = fd_receive(peer->fd, buffer, sizeof(buffer), &fds);
	linger_unlimit();
	if (size == -EAGAIN)
		return;
	if (size == 0)
		peer->input_ended = true;
	if (size <= 0) {
		if (size < 0)
			peer_close(peer);
		update_interest(peer, false);
		return;
	}
	linger_limit();
	error = varlink_input_feed(peer->input, buffer, (size_t)size, &fds);
	linger_unlimit();
	if (error)
		refuse_garbage(peer, error == -EMSGSIZE
					     ? "a message is too long; 64 KiB is the limit"
					     : "fds came without a message, or too many of them");
	else
		handle_input(peer);
	update_interest(peer, false);
}

static int handle_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct peer *peer = userdata;

	/* Nobody is left to answer to. */
	if ((events & (EPOLLHUP | EPOLLERR)) && (peer->waiting || peer->input_ended)) {
		peer_close(peer);
		return 0;
	}
	if (events & EPOLLOUT) {
		flush_output(peer);
		if (peer->streaming && !peer->dead && !peer->output_first)
			peer->drained(peer->drained_context);
		update_interest(peer, false);
	}
	if (!peer->dead && !peer->waiting && !peer->input_ended &&
		(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		read_input(peer);
	return 0;
}

static int handle_resume(sd_event_source *source, void *userdata)
{
	handle_input(userdata);
	return 0;
}

static int handle_timeout(sd_event_source *source, uint64_t time_us, void *userdata)
{
	struct peer *peer = userdata;

	if (server_may_log(peer->server))
		log_warn(peer->tag, "was disconnected: %s",
			source == peer->request_timer ? "its request was not complete after 5 s"
						      : "it took no reply for 30 s");
	peer_close(peer);
	return 0;
}

static int add_timer(sd_event *event, sd_event_source **ret_timer, struct peer *peer)
{
	int error = sd_event_add_time_relative(
		event, ret_timer, CLOCK_MONOTONIC, 0, 0, handle_timeout, peer);

	return error < 0 ? error : sd_event_source_set_enabled(*ret_timer, SD_EVENT_OFF);
}

static int add_sources(struct peer *peer, sd_event *event)
{
	int error = sd_event_add_io(event, &peer->io, peer->fd, EPOLLIN, handle_io, peer);

	if (error >= 0)
		error = sd_event_add_defer(event, &peer->resume, handle_resume, peer);
	if (error >= 0)
		error = sd_event_source_set_enabled(peer->resume, SD_EVENT_OFF);
	if (error >= 0)
		error = add_timer(event, &peer->request_timer, peer);
	if (error >= 0)
		error = add_timer(event, &peer->reply_timer, peer);
	return error < 0 ? error : 0;
}

int peer_new(struct server *server, sd_event *event, int fd, struct credentials *credentials,
	struct peer **ret_peer)
{
	cleanup_fd int owned_fd = fd;
	cleanup_with(peer_free) struct peer *peer = calloc(1, sizeof(*peer));
	int error;

	if (!peer) {
		credentials_done(credentials);
		return -ENOMEM;
	}
	peer->server = server;
	peer->credentials = *credentials;
	peer->uid = credentials->uid;
	peer->pid = credentials->pid;
	snprintf(peer->tag, sizeof(peer->tag), "peer %d", (int)credentials->pid);
	peer->fd = take_fd(&owned_fd);
	error = varlink_input_new(&peer->input);
	if (!error)
		error = session_new(peer, server_registry(server), &peer->session);
	if (!error)
		error = add_sources(peer, event);
	if (error)
		return error;
	*ret_peer = take_ptr(peer);
	return 0;
}
