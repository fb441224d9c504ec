#include "broker/server.h"

#include "base/cleanup.h"
#include "base/linger.h"
#include "base/log.h"
#include "broker/events.h"
#include "broker/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

/* Connections accepted in one turn of the loop, so that peers get their turns too. */
#define ACCEPTS_PER_TURN 16

/* Without free fds the waiting connection would wake the loop for ever. */
#define ACCEPT_PAUSE_MS 1000

struct server {
	struct server_options options;
	struct peer *peers;
	size_t peers_count;
	struct rate_limit lines;
	sd_event_source *accept;
	sd_event_source *accept_pause;
	sd_event_source *sweep;
	sd_event_source *idle;
	bool idle_timing;
};

struct registry *server_registry(const struct server *server)
{
	return server->options.registry;
}

bool server_may_log(struct server *server)
{
	uint32_t suppressed;

	if (!rate_limit_allow(&server->lines, rate_limit_now_ms(), &suppressed))
		return false;
	if (suppressed > 0)
		log_warn("main", "%u lines on peers were left out", suppressed);
	return true;
}

void server_sweep(struct server *server)
{
	sd_event_source_set_enabled(server->sweep, SD_EVENT_ONESHOT);
}

static bool is_idle(const struct server *server)
{
	return server->options.exit_when_idle && !server->peers &&
	       registry_is_empty(server->options.registry);
}

static void update_idle(struct server *server)
{
	bool idle = is_idle(server);

	if (idle == server->idle_timing)
		return;
	server->idle_timing = idle;
	if (idle)
		sd_event_source_set_time_relative(
			server->idle, server->options.idle_timeout_ms * 1000);
	sd_event_source_set_enabled(server->idle, idle ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int handle_idle(sd_event_source *source, uint64_t time_us, void *userdata)
{
	struct server *server = userdata;

	server->idle_timing = false;
	if (!is_idle(server))
		return 0;
	log_info("main", "ended: no network and no peer for %llu s",
		(unsigned long long)(server->options.idle_timeout_ms / 1000));
	return sd_event_exit(server->options.event, 0);
}

static void handle_registry_change(void *context)
{
	update_idle(context);
}

static int handle_sweep(sd_event_source *source, void *userdata)
{
	struct server *server = userdata;
	struct peer **link = &server->peers;

	while (*link) {
		struct peer *peer = *link;

		if (!peer->dead) {
			link = &peer->next;
			continue;
		}
		*link = peer->next;
		server->peers_count--;
		log_debug(peer->tag, "disconnected");
		peer_free(peer);
	}
	sd_event_source_set_enabled(server->accept, SD_EVENT_ON);
	update_idle(server);
	return 0;
}

static size_t count_peers_of_user(const struct server *server, uid_t uid)
{
	size_t count = 0;

	for (const struct peer *peer = server->peers; peer; peer = peer->next)
		count += peer->uid == uid && !peer->dead;
	return count;
}

/* Tells the client why before it has asked for anything: it reads this as the answer to its call.
 */
static void refuse_peer(struct server *server, int fd, const struct credentials *credentials,
	const struct failure *failure)
{
	cleanup_json json_t *message = broker_error_encode(failure->error, failure->reason);
	cleanup_free char *bytes = NULL;
	size_t size;

	if (message && varlink_encode(message, &bytes, &size) == 0)
		fd_send(fd, bytes, size, NULL, 0);
	events_tell_refusal(server->options.registry, credentials->uid, failure);
	if (server_may_log(server))
		log_warn("main", "refused a connection of process %d: %s", (int)credentials->pid,
			failure->reason);
}

static void add_peer(struct server *server, int fd)
{
	cleanup_fd int owned_fd = fd;
	struct credentials credentials;
	struct failure failure;
	struct peer *peer;

	if (credentials_read(fd, &credentials) < 0)
		return;
	if (policy_check_peer(credentials.uid, server->peers_count,
		    count_peers_of_user(server, credentials.uid), &failure) < 0) {
		refuse_peer(server, fd, &credentials, &failure);
		credentials_done(&credentials);
		/* With what it sent and nobody received. */
		linger_close_fd(take_fd(&owned_fd));
		return;
	}
	if (peer_new(server, server->options.event, take_fd(&owned_fd), &credentials, &peer) < 0)
		return;
	log_debug(peer->tag, "connected, user %d", (int)peer->uid);
	peer->next = server->peers;
	server->peers = peer;
	server->peers_count++;
	update_idle(server);
}

static void pause_accepting(struct server *server, int error)
{
	if (server_may_log(server))
		log_error("main", "no connection could be accepted for %d ms: %s", ACCEPT_PAUSE_MS,
			strerror(-error));
	sd_event_source_set_enabled(server->accept, SD_EVENT_OFF);
	sd_event_source_set_time_relative(server->accept_pause, ACCEPT_PAUSE_MS * 1000);
	sd_event_source_set_enabled(server->accept_pause, SD_EVENT_ONESHOT);
}

static int handle_accept(sd_event_source *source, int listen_fd, uint32_t events, void *userdata)
{
	struct server *server = userdata;

	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		int error = -errno;

		if (fd >= 0) {
			add_peer(server, fd);
			continue;
		}
		/* Of a connection that ended before it was accepted nothing is left. */
		if (error == -EINTR || error == -ECONNABORTED)
			continue;
		if (error != -EAGAIN)
			pause_accepting(server, error);
		break;
	}
	return 0;
}

static int handle_accept_pause(sd_event_source *source, uint64_t time_us, void *userdata)
{
	struct server *server = userdata;

	sd_event_source_set_enabled(server->accept, SD_EVENT_ON);
	return 0;
}

static int add_timer(
	struct server *server, sd_event_source **ret_source, sd_event_time_handler_t handler)
{
	int error = sd_event_add_time_relative(
		server->options.event, ret_source, CLOCK_MONOTONIC, 0, 0, handler, server);

	return error < 0 ? error : sd_event_source_set_enabled(*ret_source, SD_EVENT_OFF);
}

static int add_sources(struct server *server)
{
	sd_event *event = server->options.event;
	int error = sd_event_add_io(
		event, &server->accept, server->options.listen_fd, EPOLLIN, handle_accept, server);

	if (error >= 0)
		error = sd_event_add_defer(event, &server->sweep, handle_sweep, server);
	if (error >= 0)
		error = sd_event_source_set_enabled(server->sweep, SD_EVENT_OFF);
	if (error >= 0)
		error = add_timer(server, &server->accept_pause, handle_accept_pause);
	if (error >= 0)
		error = add_timer(server, &server->idle, handle_idle);
	/* A connection that waits to be accepted comes before the end. */
	if (error >= 0)
		error = sd_event_source_set_priority(server->idle, SD_EVENT_PRIORITY_IDLE);
	return error < 0 ? error : 0;
}

void server_free(struct server *server)
{
	if (!server)
		return;
	while (server->peers) {
		struct peer *peer = server->peers;

		server->peers = peer->next;
		peer_free(peer);
	}
	server->options.registry->changed = NULL;
	sd_event_source_disable_unref(server->accept);
	sd_event_source_disable_unref(server->accept_pause);
	sd_event_source_disable_unref(server->sweep);
	sd_event_source_disable_unref(server->idle);
	fd_close(server->options.listen_fd);
	free(server);
}
DEFINE_CLEANUP(struct server, server_free)

int server_new(const struct server_options *options, struct server **ret_server)
{
	cleanup_fd int listen_fd = options->listen_fd;
	cleanup_with(server_free) struct server *server = calloc(1, sizeof(*server));
	int error;

	if (!server)
		return -ENOMEM;
	server->options = *options;
	server->options.listen_fd = take_fd(&listen_fd);
	/* systemd passes a blocking one. */
	if (fcntl(server->options.listen_fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	error = add_sources(server);
	if (error)
		return error;
	options->registry->changed = handle_registry_change;
	options->registry->context = server;
	update_idle(server);
	*ret_server = take_ptr(server);
	return 0;
}
