#include "forwarder/listeners.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "forwarder/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define TAG "forwarder"

/* --- life --- */

int listeners_init(struct listeners *listeners, struct loop *loop, struct streams *streams,
	struct datagrams *datagrams)
{
	*listeners = (struct listeners){.loop = loop, .streams = streams, .datagrams = datagrams};
	listeners->all = calloc(FORWARDER_FORWARDS_MAX, sizeof(*listeners->all));
	if (!listeners->all)
		return -ENOMEM;
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX; i++)
		listeners->all[i] = (struct listener){.listeners = listeners, .fd = -1};
	return 0;
}

static bool is_used(const struct listener *listener)
{
	return listener->fd >= 0;
}

/* Before the socket, which the front may have a copy of for a moment more. */
static void unwatch(struct listener *listener)
{
	struct listeners *listeners = listener->listeners;

	if (!listener->is_resting)
		loop_remove(listeners->loop, listener->fd);
	listeners->resting_count -= listener->is_resting;
	listener->is_resting = false;
}

static void close_listener(struct listener *listener)
{
	struct listeners *listeners = listener->listeners;

	if (listener->forward.protocol == IPPROTO_UDP)
		datagrams_end_flows(listeners->datagrams, listener);
	unwatch(listener);
	fd_close(take_fd(&listener->fd));
	listeners->count--;
}

void listeners_done(struct listeners *listeners)
{
	for (size_t i = 0; listeners->all && i < FORWARDER_FORWARDS_MAX; i++)
		if (is_used(&listeners->all[i]))
			close_listener(&listeners->all[i]);
	free(listeners->all);
}

/* --- what comes --- */

static void handle_tcp(struct watch *watch, uint32_t events)
{
	struct listener *listener = (struct listener *)watch;
	struct listeners *listeners = listener->listeners;
	int error;

	if (!is_used(listener) || listener->is_resting)
		return;
	error = streams_accept(listeners->streams, listener->fd, &listener->forward);
	if (!error)
		return;
	if (!listeners->has_told_rest)
		log_warn(TAG, "port %u takes no connection for a moment, as others may: %s",
			listener->forward.listen_port, strerror(-error));
	listeners->has_told_rest = true;
	loop_remove(listeners->loop, listener->fd);
	listener->is_resting = true;
	listeners->resting_count++;
}

static void handle_udp(struct watch *watch, uint32_t events)
{
	struct listener *listener = (struct listener *)watch;

	if (is_used(listener))
		datagrams_take(listener->listeners->datagrams, listener);
}

static int watch_listener(struct listener *listener)
{
	listener->watch.handle =
		listener->forward.protocol == IPPROTO_TCP ? handle_tcp : handle_udp;
	return loop_add(listener->listeners->loop, listener->fd, EPOLLIN, &listener->watch);
}

void listeners_resume(struct listeners *listeners)
{
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX && listeners->resting_count > 0; i++) {
		struct listener *listener = &listeners->all[i];

		if (!is_used(listener) || !listener->is_resting || watch_listener(listener) < 0)
			continue;
		listener->is_resting = false;
		listeners->resting_count--;
	}
}

bool listeners_rest(const struct listeners *listeners)
{
	return listeners->resting_count > 0;
}

/* --- one more --- */

__attribute__((format(printf, 3, 4))) static int fail(
	char *detail, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(detail, FORWARDER_DETAIL_SIZE, format, arguments);
	va_end(arguments);
	return error;
}

static int get_option(int fd, int level, int name)
{
	int value;
	socklen_t size = sizeof(value);

	return getsockopt(fd, level, name, &value, &size) < 0 ? -errno : value;
}

static bool is_bound_to(int fd, const struct forwarder_forward *forward)
{
	struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
	socklen_t size = sizeof(address);

	return getsockname(fd, (struct sockaddr *)&address, &size) == 0 &&
	       address_is(&address, forward->is_ipv6, forward->listen, forward->listen_port);
}

static bool is_connected(int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);

	return getpeername(fd, (struct sockaddr *)&address, &size) == 0;
}

/* What is wrong with a socket, for people; NULL: nothing. */
static const char *find_fault(int fd, const struct forwarder_forward *forward)
{
	bool is_tcp = forward->protocol == IPPROTO_TCP;

	if (get_option(fd, SOL_SOCKET, SO_TYPE) != (is_tcp ? SOCK_STREAM : SOCK_DGRAM) ||
		get_option(fd, SOL_SOCKET, SO_PROTOCOL) != forward->protocol)
		return "is of another kind";
	if (!is_bound_to(fd, forward))
		return "is bound to another address";
	if (is_tcp && get_option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1)
		return "does not listen";
	if (!is_tcp && is_connected(fd))
		return "is connected";
	if (forward->is_ipv6 && get_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 1)
		return "takes IPv4, too";
	if (!(fcntl(fd, F_GETFL) & O_NONBLOCK))
		return "blocks";
	return NULL;
}

static struct listener *find(struct listeners *listeners, const struct forwarder_forward *forward)
{
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX; i++)
		if (is_used(&listeners->all[i]) &&
			forward_has_same_listen(&listeners->all[i].forward, forward))
			return &listeners->all[i];
	return NULL;
}

static struct listener *find_free(struct listeners *listeners)
{
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX; i++)
		if (!is_used(&listeners->all[i]))
			return &listeners->all[i];
	return NULL;
}

static int open_listener(struct listeners *listeners, const struct forwarder_forward *forward,
	struct fd_list *fds, char *detail)
{
	const char *fault = find_fault(fds->fds[0], forward);
	struct listener *listener = find_free(listeners);
	int error;

	if (fault)
		return fail(
			detail, -EINVAL, "the socket for port %u %s", forward->listen_port, fault);
	if (!listener)
		return fail(
			detail, -ENOSPC, "there are %d forwards already", FORWARDER_FORWARDS_MAX);
	*listener = (struct listener){
		.listeners = listeners,
		.forward = *forward,
		.fd = fds->fds[0],
		.is_mentioned = true,
	};
	error = forward->protocol == IPPROTO_UDP ? datagrams_prepare(listener) : 0;
	if (!error)
		error = watch_listener(listener);
	if (error) {
		listener->fd = -1;
		return fail(detail, error, "port %u cannot be waited for: %s", forward->listen_port,
			strerror(-error));
	}
	fd_list_take(fds, 0);
	listeners->count++;
	return 0;
}

int listeners_add(struct listeners *listeners, const struct forwarder_forward *forward,
	struct fd_list *fds, char *detail)
{
	struct listener *listener;

	if (fds->count > 1 || !forward_is_valid(forward))
		return fail(detail, -EINVAL, "a forward is malformed");
	listener = find(listeners, forward);
	if (fds->count == 1)
		return listener ? fail(detail, -EEXIST, "port %u is listened on already",
					  forward->listen_port)
				: open_listener(listeners, forward, fds, detail);
	if (!listener)
		return fail(
			detail, -ENOENT, "nothing listens on port %u yet", forward->listen_port);
	listener->forward = *forward;
	listener->is_mentioned = true;
	return 0;
}

/* --- the list --- */

void listeners_begin(struct listeners *listeners)
{
	listeners->has_told_rest = false;
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX; i++)
		listeners->all[i].is_mentioned = false;
}

int listeners_end(struct listeners *listeners, bool ends_flows)
{
	for (size_t i = 0; i < FORWARDER_FORWARDS_MAX; i++)
		if (is_used(&listeners->all[i]) && !listeners->all[i].is_mentioned)
			close_listener(&listeners->all[i]);
	if (ends_flows)
		datagrams_end_stale_flows(listeners->datagrams);
	return (int)listeners->count;
}
