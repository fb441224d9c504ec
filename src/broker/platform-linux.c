/* The platform's calls as verbs to priv; see linux.h for its other parts. */
#include "broker/platform-linux.h"

#include "broker/config.h"
#include "broker/linux.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

/* Longer than the slowest verb: stopping a dnsmasq that does not want to end. */
#define REPLY_TIMEOUT_S 10

static_assert(CONFIG_MTU_MIN == VERB_MTU_MIN && CONFIG_MTU_MAX == VERB_MTU_MAX &&
		      SETTINGS_LEASE_MIN_S == VERB_LEASE_MIN_S &&
		      SETTINGS_LEASE_MAX_S == VERB_LEASE_MAX_S,
	"priv makes what can be configured");

struct platform_timer {
	sd_event_source *source;
	platform_timer_callback *callback;
	void *context;
};

static void ignore_interface(void *context, uint32_t number)
{
}

static void ignore_tampering(void *context, uint32_t number, const char *tampering)
{
}

static void ignore_text(void *context, const char *text)
{
}

static void ignore_change(void *context)
{
}

static void ignore_line(void *context, const char *network, const char *line)
{
}

static const struct platform_events no_events = {
	.interface_tampered = ignore_tampering,
	.interface_gone = ignore_interface,
	.process_ended = ignore_interface,
	.network_gone = ignore_text,
	.guard_stale = ignore_text,
	.nat_stale = ignore_text,
	.uses_changed = ignore_change,
	.firewalld_refused = ignore_line,
	.forwards_stale = ignore_text,
	.resolvers_changed = ignore_change,
	.names_refused = ignore_line,
	.dhcp_line = ignore_line,
	.dhcp_ended = ignore_text,
};

void platform_set_events(
	struct platform *platform, const struct platform_events *events, void *context)
{
	platform->events = events ? events : &no_events;
	platform->context = context;
}

static int lose_priv(struct platform *platform)
{
	platform->lost = true;
	sd_event_exit(platform->event, -ENOTCONN);
	return -ENOTCONN;
}

static int receive_reply(struct platform *platform, const struct verb_request *request,
	struct verb_reply *ret_reply, struct fd_list *ret_fds)
{
	cleanup_fds struct fd_list fds;
	struct verb_reply reply;
	ssize_t size;

	fd_list_init(&fds);
	size = fd_receive(platform->verbs, &reply, sizeof(reply), &fds);
	/* A late answer to an earlier call that timed out would be no reply at all. */
	if (size != sizeof(reply) || reply.magic != VERB_MAGIC || reply.verb != request->verb ||
		reply.sequence != request->sequence)
		return lose_priv(platform);
	reply.detail[sizeof(reply.detail) - 1] = '\0';
	*ret_reply = reply;
	*ret_fds = fds;
	fds.count = 0;
	return 0;
}

static int send_request(
	struct platform *platform, struct verb_request *request, const int *fds, size_t fds_count)
{
	if (platform->lost)
		return -ENOTCONN;
	request->magic = VERB_MAGIC;
	request->sequence = ++platform->sequence;
	return fd_send(platform->verbs, request, sizeof(*request), fds, fds_count) < 0
		       ? lose_priv(platform)
		       : 0;
}

/* The reply to what was sent first of that which has none yet. */
static int take_reply(struct platform *platform, const struct verb_request *request,
	struct verb_reply *ret_reply, struct fd_list *ret_fds, char *detail)
{
	cleanup_fds struct fd_list reply_fds;
	struct verb_reply reply;
	int error;

	fd_list_init(&reply_fds);
	error = receive_reply(platform, request, &reply, &reply_fds);
	if (error)
		return error;
	if (reply.result < 0) {
		if (detail)
			snprintf(detail, PLATFORM_DETAIL_SIZE, "%s", reply.detail);
		return reply.result;
	}
	if (ret_reply)
		*ret_reply = reply;
	if (ret_fds) {
		*ret_fds = reply_fds;
		reply_fds.count = 0;
	}
	return 0;
}

int linux_call(struct platform *platform, struct verb_request *request, const int *fds,
	size_t fds_count, struct verb_reply *ret_reply, struct fd_list *ret_fds, char *detail)
{
	int error = send_request(platform, request, fds, fds_count);

	return error ? error : take_reply(platform, request, ret_reply, ret_fds, detail);
}

/*
 * The same for a verb whose reply brings fds, and waits until priv has closed its copies of them.
 * Both requests go at once: waiting for priv takes longer than what it does.
 */
static int call_and_settle(struct platform *platform, struct verb_request *request,
	struct verb_reply *ret_reply, struct fd_list *ret_fds, char *detail)
{
	struct verb_request settle = {.verb = VERB_SETTLE};
	int error = send_request(platform, request, NULL, 0);
	int settle_error;

	if (!error)
		error = send_request(platform, &settle, NULL, 0);
	if (error)
		return error;
	error = take_reply(platform, request, ret_reply, ret_fds, detail);
	settle_error = platform->lost ? -ENOTCONN : take_reply(platform, &settle, NULL, NULL, NULL);
	return error ? error : settle_error;
}

/* The common shape: a network's name in, nothing out. */
static int call_with_network(
	struct platform *platform, enum verb verb, const char *network, char *detail)
{
	struct verb_request request = {.verb = verb};
	int error = text_copy(request.network.network, sizeof(request.network.network), network);

	return error ? error : linux_call(platform, &request, NULL, 0, NULL, NULL, detail);
}

static int watch_network(struct platform *platform, int index, const char *network)
{
	return link_watch_add(platform->links, index, LINK_KIND_BRIDGE, 0, network, false);
}

int platform_create_network(
	struct platform *platform, struct platform_network *network, char *detail)
{
	struct verb_request request = {
		.verb = VERB_CREATE_BRIDGE,
		.create_bridge =
			{
				.mode = (uint8_t)network->mode,
				.prefix_length = network->subnet.prefix_length,
				.subnet_address = network->subnet.address.s_addr,
				.gateway_offset = network->gateway_offset,
				.has_ipv6 = network->has_ipv6,
				.mtu = network->mtu,
			},
	};
	struct verb_reply reply;
	int error = text_copy(request.create_bridge.network, sizeof(request.create_bridge.network),
		network->name);

	memcpy(request.create_bridge.ipv6_prefix, &network->ipv6_prefix,
		sizeof(request.create_bridge.ipv6_prefix));
	memcpy(request.create_bridge.uplink, network->uplink, IFNAMSIZ);
	if (!error)
		error = linux_call(platform, &request, NULL, 0, &reply, NULL, detail);
	if (error)
		return error;
	bridge_interface_name(platform->instance, network->name, network->bridge);
	return watch_network(platform, (int)reply.value, network->name);
}

int platform_destroy_network(struct platform *platform, const char *network, char *detail)
{
	int error = call_with_network(platform, VERB_DELETE_BRIDGE, network, detail);

	if (error && error != -ENOENT)
		return error;
	link_watch_remove_network(platform->links, network);
	child_watch_remove(platform->children, network);
	return 0;
}

static int watch_interface(struct platform *platform, const struct verb_reply *reply,
	const struct platform_port *port, const char *network)
{
	bool is_macvtap = reply->result == VERB_IS_MACVTAP;
	int error = link_watch_add(platform->links, (int)reply->value,
		is_macvtap ? LINK_KIND_MACVTAP : LINK_KIND_TAP, port->number, network,
		!is_macvtap && (port->isolated || port->locked));

	if (!error && is_macvtap)
		link_watch_expect_mac(platform->links, (int)reply->value, port->mac);
	return error;
}

int platform_attach(struct platform *platform, const char *network,
	const struct platform_port *port, int ret_fds[PLATFORM_QUEUES_MAX], char *detail)
{
	struct verb_request request = {
		.verb = VERB_CREATE_TAP,
		.create_tap =
			{
				.number = port->number,
				.queues = port->queues,
				.port = (port->isolated ? VERB_PORT_ISOLATED : 0u) |
					(port->locked ? VERB_PORT_LOCKED : 0u) |
					(port->named ? VERB_PORT_NAMED : 0u),
				.address = port->address.s_addr,
				.owner = port->named ? port->owner : 0,
			},
	};
	cleanup_fds struct fd_list fds;
	struct verb_reply reply;
	size_t fds_count = port->named ? 0 : port->queues;
	int error =
		text_copy(request.create_tap.network, sizeof(request.create_tap.network), network);

	fd_list_init(&fds);
	memcpy(request.create_tap.mac, port->mac.bytes, MAC_SIZE);
	if (!error && port->uplink)
		error = text_copy(request.create_tap.uplink, IFNAMSIZ, port->uplink);
	if (!error)
		error = call_and_settle(platform, &request, &reply, &fds, detail);
	if (error)
		return error;
	if (fds.count != fds_count)
		return -EPROTO;
	error = watch_interface(platform, &reply, port, network);
	if (error)
		return error;
	for (size_t i = 0; i < fds_count; i++)
		ret_fds[i] = fd_list_take(&fds, i);
	return port->named ? 1 : reply.result;
}

int platform_open_vhosts(
	struct platform *platform, uint32_t count, int ret_fds[PLATFORM_QUEUES_MAX], char *detail)
{
	struct verb_request request = {.verb = VERB_OPEN_VHOST, .open_vhost.count = count};
	cleanup_fds struct fd_list fds;
	int error;

	fd_list_init(&fds);
	error = linux_call(platform, &request, NULL, 0, NULL, &fds, detail);
	if (error)
		return error;
	if (fds.count != count)
		return -EPROTO;
	for (size_t i = 0; i < count; i++)
		ret_fds[i] = fd_list_take(&fds, i);
	return 0;
}

int platform_revoke(struct platform *platform, uint32_t number, char *detail)
{
	struct verb_request request = {.verb = VERB_DELETE_TAP, .delete_tap.number = number};

	return linux_call(platform, &request, NULL, 0, NULL, NULL, detail);
}

void platform_interface_name(uint32_t number, char name[IFNAMSIZ])
{
	tap_interface_name(number, name);
}

/* Before priv gets them: what else a caller may send, such as a file of a FUSE daemon that never
 * answers, can hold up whoever closes it. */
static int check_sockets(const int *sockets, size_t count, char *detail)
{
	for (size_t i = 0; i < count; i++) {
		int domain = 0;
		socklen_t size = sizeof(domain);

		if (getsockopt(sockets[i], SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
			domain == AF_UNIX)
			continue;
		snprintf(detail, PLATFORM_DETAIL_SIZE, "fd %zu is no AF_UNIX socket", i);
		return -EINVAL;
	}
	return 0;
}

/* As far as net.core.wmem_max goes, which takes no privilege. */
static int enlarge_buffers(const int *sockets, size_t count, uint32_t bytes, uint32_t *ret_bytes)
{
	const int wanted = (int)bytes;
	int smallest = INT_MAX;

	for (size_t i = 0; i < count; i++) {
		int size = 0;
		socklen_t length = sizeof(size);

		(void)setsockopt(sockets[i], SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted));
		(void)setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUF, &wanted, sizeof(wanted));
		if (getsockopt(sockets[i], SOL_SOCKET, SO_SNDBUF, &size, &length) < 0)
			return -errno;
		if (size < smallest)
			smallest = size;
	}
	*ret_bytes = (uint32_t)smallest / 2;
	return 0;
}

int platform_force_buffers(struct platform *platform, const int *sockets, size_t count,
	uint32_t bytes, uint32_t *ret_bytes, char *detail)
{
	struct verb_request request = {.verb = VERB_FORCE_BUFFERS, .force_buffers.bytes = bytes};
	struct verb_reply reply;
	int error = check_sockets(sockets, count, detail);

	if (error)
		return error;
	if (platform->is_rootless)
		return enlarge_buffers(sockets, count, bytes, ret_bytes);
	error = linux_call(platform, &request, sockets, count, &reply, NULL, detail);
	if (error)
		return error;
	/* The kernel reserves as much again for its bookkeeping and counts it (socket(7)). */
	*ret_bytes = reply.value / 2;
	return 0;
}

int platform_apply_guard(struct platform *platform, char *detail)
{
	struct verb_request request = {.verb = VERB_APPLY_GUARD};

	return linux_call(platform, &request, NULL, 0, NULL, NULL, detail);
}

int platform_apply_nat(struct platform *platform, char *detail)
{
	struct verb_request request = {.verb = VERB_APPLY_NAT};

	return linux_call(platform, &request, NULL, 0, NULL, NULL, detail);
}

static uint32_t service_bits(const struct platform_service *service)
{
	return (service->dhcp ? VERB_SERVICE_DHCP : 0u) | (service->dns ? VERB_SERVICE_DNS : 0u) |
	       (service->router_advertisement ? VERB_SERVICE_ROUTER_ADVERTISEMENT : 0u);
}

/* What it said to an earlier front, or to nobody. */
static void skip_log(int log)
{
	char ignored[4096];

	while (read(log, ignored, sizeof(ignored)) > 0)
		;
}

int platform_start_dhcp(struct platform *platform, const char *network,
	const struct platform_service *service, char *detail)
{
	struct verb_request request = {
		.verb = VERB_START_DNSMASQ,
		.start_dnsmasq =
			{
				.services = service_bits(service),
				.lease_s = service->lease_s,
				.last_offset = service->last_offset,
			},
	};
	cleanup_fds struct fd_list fds;
	struct verb_reply reply;
	int error;

	fd_list_init(&fds);
	memcpy(request.start_dnsmasq.domain, service->domain, NETWORK_DOMAIN_SIZE);
	error = text_copy(
		request.start_dnsmasq.network, sizeof(request.start_dnsmasq.network), network);
	if (!error)
		error = linux_call(platform, &request, NULL, 0, &reply, &fds, detail);
	if (error)
		return error;
	if (fds.count != 2)
		return -EPROTO;
	if (reply.result == VERB_RUNS_ALREADY)
		skip_log(fds.fds[1]);
	error = child_watch_add(
		platform->children, network, fd_list_take(&fds, 0), fd_list_take(&fds, 1));
	return error ? error : reply.result == VERB_RUNS_ALREADY;
}

int platform_stop_dhcp(struct platform *platform, const char *network, char *detail)
{
	int error = call_with_network(platform, VERB_STOP_DNSMASQ, network, detail);

	child_watch_remove(platform->children, network);
	return error == -ESRCH ? 0 : error;
}

int platform_reload_dhcp(struct platform *platform, const char *network)
{
	return child_watch_signal(platform->children, network, SIGHUP);
}

int platform_visit_links(
	struct platform *platform, const struct platform_visitor *visitor, void *context)
{
	return link_watch_visit(platform->links, visitor, context);
}

static int handle_timer(sd_event_source *source, uint64_t time_us, void *userdata)
{
	struct platform_timer *timer = userdata;

	timer->callback(timer->context);
	return 0;
}

int platform_timer_new(struct platform *platform, platform_timer_callback *callback, void *context,
	struct platform_timer **ret_timer)
{
	cleanup_free struct platform_timer *timer = calloc(1, sizeof(*timer));
	int error;

	if (!timer)
		return -ENOMEM;
	timer->callback = callback;
	timer->context = context;
	error = sd_event_add_time_relative(
		platform->event, &timer->source, CLOCK_MONOTONIC, 0, 1000, handle_timer, timer);
	if (error < 0)
		return error;
	sd_event_source_set_enabled(timer->source, SD_EVENT_OFF);
	*ret_timer = take_ptr(timer);
	return 0;
}

void platform_timer_start(struct platform_timer *timer, uint64_t delay_ms)
{
	sd_event_source_set_time_relative(timer->source, delay_ms * 1000);
	sd_event_source_set_enabled(timer->source, SD_EVENT_ONESHOT);
}

void platform_timer_stop(struct platform_timer *timer)
{
	sd_event_source_set_enabled(timer->source, SD_EVENT_OFF);
}

void platform_timer_free(struct platform_timer *timer)
{
	if (!timer)
		return;
	sd_event_source_disable_unref(timer->source);
	free(timer);
}

void platform_randomize(struct platform *platform, void *bytes, size_t size)
{
	/* Requests of up to 256 bytes are never cut short (getrandom(2)). */
	while (getrandom(bytes, size, 0) < 0 && errno == EINTR)
		;
}

/* Nothing is ever said unasked: readable means that priv has gone. */
static int handle_verbs(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	lose_priv(userdata);
	return 0;
}

static int watch_verbs(struct platform *platform)
{
	const struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_S};
	int error;

	if (setsockopt(platform->verbs, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
		setsockopt(platform->verbs, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return -errno;
	error = sd_event_add_io(platform->event, &platform->verbs_source, platform->verbs, EPOLLIN,
		handle_verbs, platform);
	return error < 0 ? error : 0;
}

void platform_close(struct platform *platform)
{
	if (!platform)
		return;
	child_watch_free(platform->children);
	guard_watch_free(platform->guard);
	process_watch_free(platform->processes);
	nat_watch_free(platform->nat);
	link_watch_free(platform->links);
	firewalld_free(platform->firewalld);
	resolved_free(platform->resolved);
	resolvers_watch_free(platform->resolvers);
	forwarder_watch_free(platform->forwarder);
	sd_event_source_disable_unref(platform->verbs_source);
	sd_event_unref(platform->event);
	free(platform);
}
DEFINE_CLEANUP(struct platform, platform_close)

uint32_t platform_instance(const struct platform *platform)
{
	return platform->instance;
}

static int ask_instance(struct platform *platform)
{
	struct verb_request request = {.verb = VERB_GET_INSTANCE};
	struct verb_reply reply;
	int error = linux_call(platform, &request, NULL, 0, &reply, NULL, NULL);

	if (!error)
		platform->instance = reply.value;
	return error;
}

int platform_open(sd_event *event, const uint32_t *instance, const char *rootless_directory,
	int verbs, struct platform **ret_platform)
{
	cleanup_with(platform_close) struct platform *platform = calloc(1, sizeof(*platform));
	int error;

	if (!platform)
		return -ENOMEM;
	platform->event = sd_event_ref(event);
	platform->is_rootless = rootless_directory;
	platform->verbs = verbs;
	platform_set_events(platform, NULL, NULL);
	error = watch_verbs(platform);
	if (instance)
		platform->instance = *instance;
	else if (!error)
		error = ask_instance(platform);
	if (!error)
		error = child_watch_new(platform, &platform->children);
	if (!error)
		error = process_watch_new(platform, &platform->processes);
	if (!error)
		error = firewalld_new(platform, &platform->firewalld);
	if (!error)
		error = resolved_new(platform, &platform->resolved);
	if (!error)
		error = resolvers_watch_new(platform, &platform->resolvers);
	if (!error && rootless_directory)
		error = forwarder_watch_new(platform, rootless_directory, &platform->forwarder);
	if (!error)
		error = link_watch_new(platform, &platform->links);
	if (!error)
		error = nat_watch_new(platform, &platform->nat);
	if (!error)
		error = guard_watch_new(platform, &platform->guard);
	if (error)
		return error;
	*ret_platform = take_ptr(platform);
	return 0;
}
