#include "forwarder/streams.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "forwarder/address.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define TAG "forwarder"

/* Clients taken from one listener before others get their turn. */
#define ACCEPTS_A_TURN 64

/* What one direction moves before others get their turn. */
#define BYTES_A_TURN (1u << 20)

#define STREAM_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* --- life --- */

int streams_init(struct streams *streams, struct loop *loop, size_t count_max)
{
	*streams = (struct streams){.loop = loop, .count_max = count_max};
	pipes_init(&streams->pipes);
	streams->all = calloc(count_max, sizeof(*streams->all));
	if (!streams->all)
		return -ENOMEM;
	for (size_t i = count_max; i-- > 0;) {
		streams->all[i].next = streams->unused;
		streams->unused = &streams->all[i];
	}
	return 0;
}

static void end_half(struct streams *streams, struct stream_half *half)
{
	if (half->bytes_in_pipe > 0)
		pipe_close(half->pipe);
	half->bytes_in_pipe = 0;
	half->is_over = true;
}

static bool has_unsent(int fd)
{
	struct tcp_info info = {.tcpi_unacked = 0};
	socklen_t size = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
	       (info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0);
}

/* Closing with SO_LINGER and no time to linger is a reset (tcp(7)), which drops what was not sent
 * yet: an answer that was given before the connection broke is worth more. */
static void close_side(struct stream_side *side, bool resets)
{
	const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	if (resets && side->fd >= 0 && !has_unsent(side->fd))
		setsockopt(side->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	fd_close(take_fd(&side->fd));
}

static void end_stream(struct stream *stream, bool resets)
{
	struct streams *streams = stream->streams;

	for (size_t i = 0; i < array_length(stream->sides); i++) {
		end_half(streams, &stream->halves[i]);
		close_side(&stream->sides[i], resets);
	}
	stream->state = STREAM_ENDED;
	stream->next = streams->ended;
	streams->ended = stream;
	streams->count--;
	if (streams->count < streams->count_max / 2)
		streams->has_told_limit = false;
}

void streams_done(struct streams *streams)
{
	for (size_t i = 0; streams->all && i < streams->count_max; i++)
		if (streams->all[i].state == STREAM_CONNECTING ||
			streams->all[i].state == STREAM_JOINED)
			end_stream(&streams->all[i], true);
	pipes_done(&streams->pipes);
	free(streams->all);
}

/* --- moving --- */

static void give_turn(struct stream *stream)
{
	struct streams *streams = stream->streams;

	if (stream->has_turn)
		return;
	stream->has_turn = true;
	stream->next_in_turn = NULL;
	if (streams->last_in_turn)
		streams->last_in_turn->next_in_turn = stream;
	else
		streams->first_in_turn = stream;
	streams->last_in_turn = stream;
}

/* Passes the end of sending on. A side that has gone meanwhile says so when it is read. */
static void finish_half(struct stream_half *half, struct stream_side *to)
{
	shutdown(to->fd, SHUT_WR);
	half->is_over = true;
}

/* Returns 1 when there are bytes in the pipe, 0 when there is nothing to be had now or ever. */
static int fill(struct pipes *pipes, struct stream_half *half, struct stream_side *from,
	struct stream_side *to)
{
	struct pipe_pair pipe;
	ssize_t moved;
	int error;

	if (!from->is_readable)
		return 0;
	error = pipes_take(pipes, &pipe);
	if (error)
		return error;
	moved = splice(from->fd, NULL, pipe.write_end, NULL, BYTES_A_TURN,
		SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	error = moved < 0 ? -errno : 0;
	if (moved > 0) {
		half->pipe = pipe;
		half->bytes_in_pipe = (size_t)moved;
		return 1;
	}
	pipes_give(pipes, pipe);
	if (moved == 0)
		finish_half(half, to);
	if (error != -EAGAIN)
		return error;
	from->is_readable = false;
	return 0;
}

/* Returns how many bytes went on; 0: none for now. */
static ssize_t drain(struct pipes *pipes, struct stream_half *half, struct stream_side *to)
{
	ssize_t moved;
	int error;

	if (!to->is_writable)
		return 0;
	moved = splice(half->pipe.read_end, NULL, to->fd, NULL, half->bytes_in_pipe,
		SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	error = moved < 0 ? -errno : 0;
	if (error == -EAGAIN) {
		to->is_writable = false;
		return 0;
	}
	if (error)
		return error;
	half->bytes_in_pipe -= (size_t)moved;
	if (half->bytes_in_pipe == 0)
		pipes_give(pipes, half->pipe);
	return moved;
}

/*
 * The side takes no more; what it said before that is still to be read, and delivered: a server
 * may answer a request that it does not read to its end.
 */
static void break_half(struct stream *stream, struct stream_half *half, struct stream_side *to)
{
	end_half(stream->streams, half);
	half->is_broken = true;
	to->is_readable = true;
}

/* Negative errno when the connection cannot go on. */
static int move_half(struct stream *stream, size_t direction)
{
	struct stream_half *half = &stream->halves[direction];
	struct stream_side *from = &stream->sides[direction];
	struct stream_side *to = &stream->sides[!direction];
	struct pipes *pipes = &stream->streams->pipes;
	size_t total = 0;

	while (!half->is_over) {
		ssize_t moved = 1;

		if (total >= BYTES_A_TURN) {
			give_turn(stream);
			return 0;
		}
		if (half->bytes_in_pipe == 0)
			moved = fill(pipes, half, from, to);
		if (moved <= 0)
			return (int)moved;
		moved = drain(pipes, half, to);
		if (moved < 0)
			break_half(stream, half, to);
		if (moved == 0)
			return 0;
		total += moved > 0 ? (size_t)moved : 0;
	}
	return 0;
}

static void move(struct stream *stream)
{
	const struct stream_half *halves = stream->halves;
	int error = move_half(stream, 0);

	/* Writing may have shown that the VM is gone: then it is read once more, here. */
	if (!error)
		error = move_half(stream, 1);
	if (!error && halves[1].is_broken && !halves[0].is_over)
		error = move_half(stream, 0);
	if (error)
		end_stream(stream, true);
	else if (halves[0].is_over && halves[1].is_over)
		end_stream(stream, halves[0].is_broken || halves[1].is_broken);
}

bool streams_have_turn(const struct streams *streams)
{
	return streams->first_in_turn != NULL;
}

/* One that was given another turn as it ended stays till then: the list of turns goes through it.
 */
static void reuse_ended(struct streams *streams)
{
	struct stream *stream = streams->ended;

	streams->ended = NULL;
	while (stream) {
		struct stream *next = stream->next;
		struct stream **list = stream->has_turn ? &streams->ended : &streams->unused;

		stream->state = stream->has_turn ? STREAM_ENDED : STREAM_UNUSED;
		stream->next = *list;
		*list = stream;
		stream = next;
	}
}

void streams_end_turn(struct streams *streams)
{
	struct stream *stream = streams->first_in_turn;

	streams->first_in_turn = NULL;
	streams->last_in_turn = NULL;
	while (stream) {
		struct stream *next = stream->next_in_turn;

		stream->has_turn = false;
		if (stream->state == STREAM_JOINED)
			move(stream);
		stream = next;
	}
	reuse_ended(streams);
}

/* --- events --- */

static void note_events(struct stream_side *side, uint32_t events)
{
	bool has_ended = (events & (EPOLLERR | EPOLLHUP)) != 0;

	side->is_readable |= has_ended || (events & (EPOLLIN | EPOLLRDHUP)) != 0;
	side->is_writable |= has_ended || (events & EPOLLOUT) != 0;
}

static void handle_client(struct watch *watch, uint32_t events)
{
	struct stream_side *side = (struct stream_side *)watch;
	struct stream *stream = side->stream;

	note_events(side, events);
	if (stream->state == STREAM_JOINED)
		move(stream);
	else if (stream->state == STREAM_CONNECTING && (events & (EPOLLERR | EPOLLHUP)))
		end_stream(stream, true);
}

/* A client whose VM refuses is reset: it was told that it is connected before we could know. */
static void finish_connecting(struct stream *stream)
{
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(stream->sides[1].fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error) {
		end_stream(stream, true);
		return;
	}
	stream->state = STREAM_JOINED;
	move(stream);
}

static void handle_vm(struct watch *watch, uint32_t events)
{
	struct stream_side *side = (struct stream_side *)watch;
	struct stream *stream = side->stream;

	note_events(side, events);
	if (stream->state == STREAM_JOINED)
		move(stream);
	else if (stream->state == STREAM_CONNECTING)
		finish_connecting(stream);
}

/* --- beginning --- */

/* What is passed on are pieces that were sent already: none waits for more of its kind. */
static void set_options(int fd)
{
	const int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static int connect_to(const struct forwarder_forward *forward, int *ret_fd)
{
	struct sockaddr_storage address;
	socklen_t size =
		address_make(forward->is_ipv6, forward->target, forward->target_port, &address);
	cleanup_fd int fd =
		socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	set_options(fd);
	if (connect(fd, (struct sockaddr *)&address, size) < 0 && errno != EINPROGRESS)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

static struct stream *new_stream(struct streams *streams)
{
	struct stream *stream = streams->unused;

	streams->unused = stream->next;
	streams->count++;
	*stream = (struct stream){.state = STREAM_CONNECTING, .streams = streams};
	stream->sides[0] =
		(struct stream_side){.watch.handle = handle_client, .stream = stream, .fd = -1};
	stream->sides[1] =
		(struct stream_side){.watch.handle = handle_vm, .stream = stream, .fd = -1};
	return stream;
}

/* Takes client over. */
static void begin_stream(
	struct streams *streams, int client, const struct forwarder_forward *forward)
{
	struct stream *stream = new_stream(streams);
	int error;

	stream->sides[0].fd = client;
	set_options(client);
	error = connect_to(forward, &stream->sides[1].fd);
	for (size_t i = 0; i < array_length(stream->sides) && !error; i++)
		error = loop_add(
			streams->loop, stream->sides[i].fd, STREAM_EVENTS, &stream->sides[i].watch);
	if (error)
		end_stream(stream, true);
}

/* Takes client over. */
static void refuse(struct streams *streams, int client)
{
	struct stream_side side = {.fd = client};

	close_side(&side, true);
	if (!streams->has_told_limit)
		log_warn(TAG, "%zu connections go through forwards, as many as may; more are reset",
			streams->count);
	streams->has_told_limit = true;
}

int streams_accept(struct streams *streams, int listener, const struct forwarder_forward *forward)
{
	for (size_t i = 0; i < ACCEPTS_A_TURN; i++) {
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		int error = client < 0 ? -errno : 0;

		if (error == -EAGAIN)
			return 0;
		if (error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM)
			return error;
		/* accept(2): errors of a connection that is none any more are told here. */
		if (error)
			continue;
		if (streams->unused)
			begin_stream(streams, client, forward);
		else
			refuse(streams, client);
	}
	return 0;
}
