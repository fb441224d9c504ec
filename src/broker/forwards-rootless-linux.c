/*
 * Forwards of networks that live in a user's own namespaces: a socket that listens here, where the
 * host is, for each, and the forwarder, which takes it in there.
 */
#include "broker/linux.h"

#include "forwarder/forwarder-protocol.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#define REPLY_TIMEOUT_MS 10000

/* What the kernel allows without being asked for more (net.core.somaxconn). */
#define BACKLOG 4096

/* One call: its connection, and what it has come to. */
struct exchange {
	int forwarder;
	uint32_t sequence;
	int active_count;
	char *detail; /* of the first forward that cannot be; PLATFORM_DETAIL_SIZE bytes */
};

/* --- the forwarder --- */

static int receive(struct exchange *exchange, const struct forwarder_request *request,
	struct forwarder_reply *ret_reply)
{
	struct pollfd waiter = {.fd = exchange->forwarder, .events = POLLIN};
	cleanup_fds struct fd_list fds;
	ssize_t size;

	fd_list_init(&fds);
	if (poll(&waiter, 1, REPLY_TIMEOUT_MS) <= 0)
		return -ETIMEDOUT;
	size = fd_receive(exchange->forwarder, ret_reply, sizeof(*ret_reply), &fds);
	if (size <= 0)
		return size < 0 ? (int)size : -ECONNRESET;
	if (size != sizeof(*ret_reply) || ret_reply->magic != FORWARDER_MAGIC ||
		ret_reply->kind != request->kind || ret_reply->sequence != request->sequence)
		return -EBADMSG;
	ret_reply->detail[sizeof(ret_reply->detail) - 1] = '\0';
	return 0;
}

/* Sends one request, with socket unless it is -1. Negative errno when there was no reply to it. */
static int call(struct exchange *exchange, struct forwarder_request *request, int socket,
	struct forwarder_reply *ret_reply)
{
	ssize_t sent;
	int error;

	request->magic = FORWARDER_MAGIC;
	request->sequence = ++exchange->sequence;
	sent = fd_send(exchange->forwarder, request, sizeof(*request), &socket, socket >= 0);
	error = sent < 0 ? (int)sent : receive(exchange, request, ret_reply);
	if (error)
		snprintf(exchange->detail, PLATFORM_DETAIL_SIZE,
			"the forwarder does not answer: %s", strerror(-error));
	return error;
}

static void encode(const struct platform_forward *forward, struct forwarder_request *ret_request)
{
	*ret_request = (struct forwarder_request){
		.kind = FORWARDER_ADD,
		.forward =
			{
				.is_ipv6 = forward->listen.is_ipv6,
				.protocol = forward->protocol,
				.listen_port = forward->listen.port,
				.target_port = forward->target.port,
			},
	};
	memcpy(ret_request->forward.listen, forward->listen.address,
		sizeof(ret_request->forward.listen));
	memcpy(ret_request->forward.target, forward->target.address,
		sizeof(ret_request->forward.target));
}

/* --- one forward --- */

static socklen_t make_address(const struct endpoint *endpoint, struct sockaddr_storage *ret_address)
{
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)ret_address;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)ret_address;

	memset(ret_address, 0, sizeof(*ret_address));
	if (endpoint->is_ipv6) {
		ipv6->sin6_family = AF_INET6;
		ipv6->sin6_port = htons(endpoint->port);
		memcpy(&ipv6->sin6_addr, endpoint->address, sizeof(ipv6->sin6_addr));
		return sizeof(*ipv6);
	}
	ipv4->sin_family = AF_INET;
	ipv4->sin_port = htons(endpoint->port);
	memcpy(&ipv4->sin_addr, endpoint->address, sizeof(ipv4->sin_addr));
	return sizeof(*ipv4);
}

/*
 * "[::]" is a forward of its own beside "0.0.0.0". Connections that have ended still hold the port
 * of a TCP forward for a minute, unless SO_REUSEADDR says that they do not matter (socket(7)).
 */
static int set_options(int fd, const struct platform_forward *forward)
{
	const int on = 1;

	if (forward->listen.is_ipv6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return -errno;
	if (forward->protocol == IPPROTO_TCP &&
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	return 0;
}

static int open_socket(const struct platform_forward *forward, int *ret_fd)
{
	bool is_tcp = forward->protocol == IPPROTO_TCP;
	struct sockaddr_storage address;
	socklen_t size = make_address(&forward->listen, &address);
	cleanup_fd int fd = socket(address.ss_family,
		(is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return -errno;
	error = set_options(fd, forward);
	if (error)
		return error;
	if (bind(fd, (struct sockaddr *)&address, size) < 0)
		return -errno;
	if (is_tcp && listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

__attribute__((format(printf, 2, 3))) static void note_failure(
	struct exchange *exchange, const char *format, ...)
{
	va_list arguments;

	if (*exchange->detail)
		return;
	va_start(arguments, format);
	vsnprintf(exchange->detail, PLATFORM_DETAIL_SIZE, format, arguments);
	va_end(arguments);
}

static void note_socket_failure(
	struct exchange *exchange, const struct platform_forward *forward, int error)
{
	const char *protocol = forward_protocol_to_text(forward->protocol);
	char listen[ENDPOINT_TEXT_SIZE];

	endpoint_to_text(&forward->listen, listen);
	if (error == -EACCES)
		note_failure(exchange,
			"%s %s is for root: choose a higher port, or have root run "
			"\"sysctl net.ipv4.ip_unprivileged_port_start=%u\"",
			protocol, listen, forward->listen.port);
	else if (error == -EADDRINUSE)
		note_failure(exchange,
			"%s %s is taken by a program of the host: end that, or choose another port",
			protocol, listen);
	else if (error == -EADDRNOTAVAIL)
		note_failure(exchange, "%s %s is no address of this host: choose one that is",
			protocol, listen);
	else
		note_failure(
			exchange, "listening on %s %s: %s", protocol, listen, strerror(-error));
}

static void take_reply(struct exchange *exchange, struct platform_forward *forward,
	const struct forwarder_reply *reply)
{
	forward->error = reply->result;
	exchange->active_count += reply->result == 0;
	if (reply->result < 0)
		note_failure(exchange, "the forwarder: %s", reply->detail);
}

/* With a socket, for one that is not listened on. Negative errno as of call(). */
static int add(struct exchange *exchange, struct platform_forward *forward)
{
	struct forwarder_request request;
	struct forwarder_reply reply;
	cleanup_fd int fd = -1;
	int error = open_socket(forward, &fd);

	if (error) {
		forward->error = error;
		note_socket_failure(exchange, forward, error);
		return 0;
	}
	encode(forward, &request);
	error = call(exchange, &request, fd, &reply);
	if (!error)
		take_reply(exchange, forward, &reply);
	return error;
}

/* Keeps it if it is listened on. *ret_is_missing: it is not. Negative errno as of call(). */
static int keep(struct exchange *exchange, struct platform_forward *forward, bool *ret_is_missing)
{
	struct forwarder_request request;
	struct forwarder_reply reply;
	int error;

	encode(forward, &request);
	error = call(exchange, &request, -1, &reply);
	if (error)
		return error;
	*ret_is_missing = reply.result == -ENOENT;
	if (!*ret_is_missing)
		take_reply(exchange, forward, &reply);
	return 0;
}

/* --- all of them --- */

/* BEGIN or END. */
static int mark(struct exchange *exchange, enum forwarder_kind kind, bool ends_flows)
{
	struct forwarder_request request = {.kind = kind, .ends_flows = ends_flows};
	struct forwarder_reply reply;
	int error = call(exchange, &request, -1, &reply);

	if (error || reply.result >= 0)
		return error;
	snprintf(exchange->detail, PLATFORM_DETAIL_SIZE, "the forwarder: %s", reply.detail);
	return reply.result;
}

/*
 * First what stays, then the end of what does not, and only then what is new: it may need the port
 * of one that has gone, at another address.
 */
static int apply(
	struct exchange *exchange, struct platform_forward *forwards, size_t count, bool ends_flows)
{
	cleanup_free bool *are_missing = calloc(count + 1, sizeof(*are_missing));
	int error;

	if (!are_missing)
		return -ENOMEM;
	error = mark(exchange, FORWARDER_BEGIN, false);
	for (size_t i = 0; i < count && !error; i++)
		error = keep(exchange, &forwards[i], &are_missing[i]);
	if (!error)
		error = mark(exchange, FORWARDER_END, ends_flows);
	for (size_t i = 0; i < count && !error; i++)
		if (are_missing[i])
			error = add(exchange, &forwards[i]);
	return error;
}

int forwarder_apply(int forwarder, struct platform_forward *forwards, size_t count, bool ends_flows,
	char *detail)
{
	struct exchange exchange = {.forwarder = forwarder, .detail = detail};
	int error;

	*detail = '\0';
	for (size_t i = 0; i < count; i++)
		forwards[i].error = 0;
	error = apply(&exchange, forwards, count, ends_flows);
	return error ? error : exchange.active_count;
}
