#include "forwarder/requests.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define TAG "forwarder"

/* Before connections get their turn. */
#define REQUESTS_A_TURN 64

/* --- what they do --- */

static int refuse(char *detail, int error, const char *text)
{
	text_copy(detail, FORWARDER_DETAIL_SIZE, text);
	return error;
}

static int serve_begin(struct listeners *listeners, const struct forwarder_request *request,
	struct fd_list *fds, bool *has_begun, char *detail)
{
	if (fds->count > 0)
		return refuse(detail, -EBADMSG, "a list begins without a socket");
	listeners_begin(listeners);
	*has_begun = true;
	return 0;
}

static int serve_add(struct listeners *listeners, const struct forwarder_request *request,
	struct fd_list *fds, bool *has_begun, char *detail)
{
	return listeners_add(listeners, &request->forward, fds, detail);
}

static int serve_end(struct listeners *listeners, const struct forwarder_request *request,
	struct fd_list *fds, bool *has_begun, char *detail)
{
	if (fds->count > 0)
		return refuse(detail, -EBADMSG, "a list ends without a socket");
	if (!*has_begun)
		return refuse(detail, -EINVAL, "a list ends that was not begun");
	*has_begun = false;
	return listeners_end(listeners, request->ends_flows != 0);
}

static int (*const serve_kind[])(struct listeners *listeners,
	const struct forwarder_request *request, struct fd_list *fds, bool *has_begun,
	char *detail) = {
	[FORWARDER_BEGIN] = serve_begin,
	[FORWARDER_ADD] = serve_add,
	[FORWARDER_END] = serve_end,
};
static_assert(array_length(serve_kind) == FORWARDER_KIND_COUNT, "every kind is served");

int request_serve(struct listeners *listeners, const struct forwarder_request *request,
	struct fd_list *fds, bool *has_begun, char *detail)
{
	if (request->magic != FORWARDER_MAGIC || request->kind >= FORWARDER_KIND_COUNT)
		return refuse(detail, -EBADMSG, "a request is malformed");
	return serve_kind[request->kind](listeners, request, fds, has_begun, detail);
}

/* --- the connection --- */

static void close_front(struct requests *requests)
{
	fd_close(take_fd(&requests->front));
	requests->has_begun = false;
	/* The next one may wait already. */
	if (loop_add(requests->loop, requests->listen_fd, EPOLLIN, &requests->listen_watch) < 0)
		log_error(TAG, "no other front can be waited for");
}

/* A front that does not read its replies makes room for the next. */
static int reply(struct requests *requests, const struct forwarder_request *request, int result,
	const char *detail)
{
	struct forwarder_reply reply = {
		.magic = FORWARDER_MAGIC,
		.kind = request->kind,
		.sequence = request->sequence,
		.result = result,
	};
	ssize_t sent;

	text_copy(reply.detail, sizeof(reply.detail), detail);
	sent = fd_send(requests->front, &reply, sizeof(reply), NULL, 0);
	return sent < 0 ? (int)sent : 0;
}

/* Returns 1 when there may be more, 0 when there is none now, negative errno when the front has
 * gone. */
static int serve_one(struct requests *requests)
{
	struct forwarder_request request = {.magic = 0};
	char detail[FORWARDER_DETAIL_SIZE] = "";
	cleanup_fds struct fd_list fds;
	ssize_t size;
	int result;

	fd_list_init(&fds);
	size = fd_receive(requests->front, &request, sizeof(request), &fds);
	if (size == -EAGAIN)
		return 0;
	if (size == 0 || (size < 0 && size != -EBADMSG))
		return size < 0 ? (int)size : -ECONNRESET;
	if (size == (ssize_t)sizeof(request))
		result = request_serve(
			requests->listeners, &request, &fds, &requests->has_begun, detail);
	else
		result = refuse(detail, -EBADMSG, "a request is malformed");
	result = reply(requests, &request, result, detail);
	return result < 0 ? result : 1;
}

static void handle_front(struct watch *watch, uint32_t events)
{
	struct requests *requests =
		(struct requests *)(void *)((char *)watch - offsetof(struct requests, front_watch));
	int more = 1;

	for (size_t i = 0; requests->front >= 0 && more > 0 && i < REQUESTS_A_TURN; i++)
		more = serve_one(requests);
	if (requests->front >= 0 && more < 0)
		close_front(requests);
}

static bool is_own_user(int front)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(front, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid())
		return true;
	log_warn(TAG, "a process of another user connected, and was sent away");
	return false;
}

static void handle_listen(struct watch *watch, uint32_t events)
{
	struct requests *requests = (struct requests *)watch;
	cleanup_fd int front = -1;

	if (requests->front >= 0)
		return;
	front = accept4(requests->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (front < 0 || !is_own_user(front) ||
		loop_add(requests->loop, front, EPOLLIN, &requests->front_watch) < 0)
		return;
	loop_remove(requests->loop, requests->listen_fd);
	requests->front = take_fd(&front);
}

int requests_init(
	struct requests *requests, struct loop *loop, struct listeners *listeners, int listen_fd)
{
	*requests = (struct requests){
		.listen_watch.handle = handle_listen,
		.front_watch.handle = handle_front,
		.loop = loop,
		.listeners = listeners,
		.listen_fd = listen_fd,
		.front = -1,
	};
	return loop_add(loop, listen_fd, EPOLLIN, &requests->listen_watch);
}

void requests_done(struct requests *requests)
{
	fd_close(requests->front);
}
