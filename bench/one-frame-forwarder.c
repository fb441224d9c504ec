/*
 * one-frame-forwarder: what the older tools do between a VM's datagram socket and a network, kept
 * as the benchmark's baseline. One thread polls both sides, and each frame costs one read and one
 * write. With more than one --fd each frame goes to everybody but its sender, as from a hub.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/options.h"
#include "base/text.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#define FRAME_MAX 65550
#define FDS_MAX   64

/* fds[0] is the TAP, without a virtio-net header; the others are VMs' sockets, non-blocking. */
struct hub {
	struct pollfd fds[FDS_MAX];
	size_t count;
	uint64_t drops;
	bool wants_help;
};

static int add_fd(struct hub *hub, size_t place, const char *argument)
{
	uint32_t fd;
	int error = text_to_uint32(argument, 0, INT_MAX, &fd);

	if (error)
		return error;
	if (place == FDS_MAX)
		return -E2BIG;
	hub->fds[place] = (struct pollfd){.fd = (int)fd, .events = POLLIN};
	return 0;
}

static int parse_tap_fd(void *context, const char *argument, char *error)
{
	return add_fd(context, 0, argument);
}

static int parse_fd(void *context, const char *argument, char *error)
{
	struct hub *hub = context;
	int result = add_fd(hub, hub->count, argument);

	hub->count += result == 0;
	return result;
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct hub *)context)->wants_help = true;
	return 0;
}

static const struct option_entry option_table[] = {
	{"tap-fd", 0, "FD", "a TAP without virtio-net header", parse_tap_fd},
	{"fd", 0, "FD", "a VM's datagram socket; again for each further VM", parse_fd},
	{"help", 'h', NULL, "print this", parse_help},
};

/* The older tools wait for room in a VM's queue; without that a baseline loses too much to be one.
 */
static void write_frame(struct hub *hub, size_t to, const uint8_t *frame, size_t size)
{
	struct pollfd room = {.fd = hub->fds[to].fd, .events = POLLOUT};
	ssize_t written = write(room.fd, frame, size);

	if (written < 0 && errno == EAGAIN && poll(&room, 1, 1) == 1)
		written = write(room.fd, frame, size);
	hub->drops += written < 0;
}

static void forward_frame(struct hub *hub, size_t from)
{
	uint8_t frame[FRAME_MAX];
	ssize_t size = read(hub->fds[from].fd, frame, sizeof(frame));

	if (size <= 0)
		return;
	for (size_t to = 0; to < hub->count; to++)
		if (to != from)
			write_frame(hub, to, frame, (size_t)size);
}

static int run(struct hub *hub)
{
	for (;;) {
		if (poll(hub->fds, hub->count, -1) < 0 && errno != EINTR)
			return -errno;
		for (size_t i = 0; i < hub->count; i++) {
			if (hub->fds[i].revents & POLLIN)
				forward_frame(hub, i);
			else if (hub->fds[i].revents)
				return -ECONNRESET;
		}
	}
}

int main(int argc, char **argv)
{
	struct hub hub = {.fds = {{.fd = -1}}, .count = 1};
	char error_text[OPTIONS_ERROR_SIZE];
	int first, error;

	if (options_parse(option_table, array_length(option_table), argc, argv, &hub, error_text,
		    &first) < 0) {
		log_error("forwarder", "%s", error_text);
		return 1;
	}
	if (hub.wants_help) {
		options_print_help(stdout, "one-frame-forwarder --tap-fd FD --fd FD...",
			option_table, array_length(option_table));
		return 0;
	}
	if (hub.fds[0].fd < 0 || hub.count < 2) {
		log_error("forwarder", "--tap-fd and at least one --fd are needed");
		return 1;
	}
	error = run(&hub);
	log_error("forwarder", "%s", strerror(-error));
	return 1;
}
