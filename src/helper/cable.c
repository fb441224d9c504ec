#include "helper/cable.h"

#include "base/cleanup.h"
#include "helper/port-dgram.h"
#include "helper/port-stream.h"
#include "helper/port-tap.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Ethernet and two VLAN tags, which the MTU does not count either; the offloads know which frame
 * has them. */
#define LINK_HEADER_SIZE_MAX (FRAME_HEADER_SIZE + 2 * 4)

struct socket_kind {
	int (*open)(int socket, size_t frame_max, bool has_header, struct port **ret_port);
	void (*close)(struct port *port);
};

static const struct socket_kind socket_kinds[] = {
	[CABLE_DGRAM] = {port_dgram_open, port_dgram_close},
	[CABLE_STREAM] = {port_stream_open, port_stream_close},
};
static_assert(array_length(socket_kinds) == CABLE_VHOST_USER, "each kind of socket");

void cable_init(struct cable *cable)
{
	*cable = (struct cable){.forward = {.stop_event = -1, .ended_event = -1}};
}

static int get_socket_option(int socket, int option, int *ret_value)
{
	socklen_t size = sizeof(*ret_value);

	return getsockopt(socket, SOL_SOCKET, option, ret_value, &size) < 0 ? -errno : 0;
}

int cable_kind_of_socket(int socket)
{
	struct sockaddr_un peer;
	socklen_t size = sizeof(peer);
	int domain, type;
	int error = get_socket_option(socket, SO_DOMAIN, &domain);

	if (error)
		return error;
	if (domain != AF_UNIX)
		return -EAFNOSUPPORT;
	error = get_socket_option(socket, SO_TYPE, &type);
	if (error)
		return error;
	if (getpeername(socket, (struct sockaddr *)&peer, &size) < 0)
		return -errno;
	return type == SOCK_STREAM ? CABLE_STREAM : CABLE_DGRAM;
}

int cable_open_socket(struct cable *cable, enum cable_kind kind, int vm_socket, int tap,
	enum offload_mode mode, size_t mtu)
{
	cleanup_fd int owned_tap = tap;
	size_t frame_max = mode == OFFLOAD_NONE ? mtu + LINK_HEADER_SIZE_MAX : FRAME_SIZE_MAX;
	int error;

	cable->kind = kind;
	error = socket_kinds[kind].open(
		vm_socket, frame_max, mode == OFFLOAD_VNET_HDR, &cable->vm_port);
	if (error)
		return error;
	error = port_tap_open(take_fd(&owned_tap), mode, &cable->host_port);
	if (error)
		return error;
	return forward_init(&cable->forward, cable->host_port, cable->vm_port, mode, mtu);
}

int cable_open_vhost_user(
	struct cable *cable, int listener, const int *taps, size_t queue_pairs, size_t mtu)
{
	cable->kind = CABLE_VHOST_USER;
	return vhost_user_open(listener, taps, queue_pairs, mtu, &cable->vhost_user);
}

int cable_start(struct cable *cable)
{
	return cable->vhost_user ? 0 : forward_start(&cable->forward);
}

void cable_close(struct cable *cable)
{
	vhost_user_close(cable->vhost_user);
	forward_done(&cable->forward);
	port_tap_close(cable->host_port);
	if (cable->kind < CABLE_VHOST_USER)
		socket_kinds[cable->kind].close(cable->vm_port);
	cable_init(cable);
}

void cable_fill(const struct cable *cable, struct pollfd fds[CABLE_FDS])
{
	if (cable->vhost_user) {
		vhost_user_fill(cable->vhost_user, fds);
		return;
	}
	for (size_t i = 0; i < CABLE_FDS; i++)
		fds[i] = (struct pollfd){.fd = -1};
	fds[0] = (struct pollfd){.fd = cable->forward.ended_event, .events = POLLIN};
}

static const enum cable_news vhost_user_meanings[] = {
	[VHOST_USER_NOTHING] = CABLE_NOTHING,
	[VHOST_USER_CONNECTED] = CABLE_CHANGED,
	[VHOST_USER_DISCONNECTED] = CABLE_CHANGED,
	[VHOST_USER_REFUSED] = CABLE_TROUBLE,
	[VHOST_USER_RING_BROKEN] = CABLE_TROUBLE,
	[VHOST_USER_ENDED] = CABLE_ENDED,
};

enum cable_news cable_dispatch(
	struct cable *cable, const struct pollfd fds[CABLE_FDS], char *ret_reason)
{
	if (cable->vhost_user)
		return vhost_user_meanings[vhost_user_dispatch(cable->vhost_user, fds, ret_reason)];
	*ret_reason = '\0';
	return fds[0].revents ? CABLE_ENDED : CABLE_NOTHING;
}

int cable_result(const struct cable *cable, enum direction direction)
{
	if (cable->vhost_user)
		return direction == DIRECTION_HOST_TO_VM ? vhost_user_result(cable->vhost_user) : 0;
	return forward_result(&cable->forward, direction);
}

void cable_count(const struct cable *cable, enum direction direction,
	struct direction_counters *ret_counters)
{
	*ret_counters = (struct direction_counters){0};
	if (cable->vhost_user)
		vhost_user_count(cable->vhost_user, direction, ret_counters);
	else
		counters_add(ret_counters, &cable->forward.lanes[direction].counters);
}
