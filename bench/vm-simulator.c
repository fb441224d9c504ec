/*
 * vm-simulator: plays a VM program. Its "guest" is the network namespace it runs in, whose TAP it
 * pumps over a socket as the VM program would, with one thread a direction, so that the other end
 * of the socket is measured and not an emulator.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/options.h"
#include "base/text.h"
#include "endpoint.h"
#include "guest-gro.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/* What the VM program's socket carries. */
enum mode {
	MODE_PLAIN,    /* finished frames of at most the MTU: QEMU */
	MODE_RAW,      /* large frames with unfinished checksums and no header: libkrun */
	MODE_VNET_HDR, /* the same behind a virtio-net header */
	MODE_COUNT,
};

static const char *const mode_names[] = {
	[MODE_PLAIN] = "plain",
	[MODE_RAW] = "raw",
	[MODE_VNET_HDR] = "vnet-hdr",
};
static_assert(array_length(mode_names) == MODE_COUNT, "a name for each mode");

struct simulator {
	const char *tap_name;
	uint32_t fd;
	uint32_t mode; /* enum mode */
	uint32_t mtu;
	uint32_t stall_every_s; /* 0: never stops reading */
	uint32_t stall_s;
	bool wants_help;
	struct endpoint tap;
	struct endpoint socket;
};

static int parse_tap(void *context, const char *argument, char *error)
{
	((struct simulator *)context)->tap_name = argument;
	return 0;
}

static int parse_fd(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 0, INT_MAX, &((struct simulator *)context)->fd);
}

static int parse_mode(void *context, const char *argument, char *error)
{
	struct simulator *simulator = context;

	for (uint32_t i = 0; i < MODE_COUNT; i++)
		if (strcmp(argument, mode_names[i]) == 0) {
			simulator->mode = i;
			return 0;
		}
	snprintf(error, OPTIONS_ERROR_SIZE, "one of plain, raw, vnet-hdr is needed");
	return -EINVAL;
}

static int parse_mtu(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 68, 65535, &((struct simulator *)context)->mtu);
}

static int parse_stall_every(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 1, 3600, &((struct simulator *)context)->stall_every_s);
}

static int parse_stall(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 1, 3600, &((struct simulator *)context)->stall_s);
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct simulator *)context)->wants_help = true;
	return 0;
}

static const struct option_entry option_table[] = {
	{"tap", 0, "NAME", "TAP to make in this network namespace", parse_tap},
	{"fd", 0, "FD", "the VM's socket: datagram, seqpacket or stream", parse_fd},
	{"mode", 0, "MODE", "plain (the default), raw or vnet-hdr", parse_mode},
	{"mtu", 0, "BYTES", "the network's MTU (1500)", parse_mtu},
	{"stall-every", 0, "SECONDS", "stop reading the socket that often", parse_stall_every},
	{"stall", 0, "SECONDS", "and for that long", parse_stall},
	{"help", 'h', NULL, "print this", parse_help},
};

/* Small slots where frames are small: the burst then stays in the cache. */
static size_t frame_max(const struct simulator *simulator)
{
	const size_t vlan_tags = 8;

	if (simulator->mode != MODE_PLAIN)
		return ENDPOINT_FRAME_MAX;
	return simulator->mtu + ETHERNET_HEADER + vlan_tags;
}

static void *pump_to_socket(void *argument)
{
	const struct simulator *simulator = argument;
	struct burst burst;
	int error = burst_init(&burst, frame_max(simulator));

	while (!error) {
		error = endpoint_read(&simulator->tap, &burst);
		if (!error)
			error = endpoint_write(&simulator->socket, &burst);
	}
	log_error("simulator", "VM to network: %s", strerror(-error));
	exit(1);
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* A VM that is paused, or too busy: this thread only, as the other direction must not notice. */
static void stall_when_due(const struct simulator *simulator, time_t *next_stall)
{
	const struct timespec length = {.tv_sec = simulator->stall_s};

	if (simulator->stall_every_s == 0 || now_s() < *next_stall)
		return;
	nanosleep(&length, NULL);
	*next_stall = now_s() + simulator->stall_every_s - simulator->stall_s;
}

static int pump_to_tap(const struct simulator *simulator)
{
	struct burst burst;
	time_t next_stall = now_s() + simulator->stall_every_s - simulator->stall_s;
	int error = burst_init(&burst, frame_max(simulator));

	while (!error) {
		stall_when_due(simulator, &next_stall);
		error = endpoint_read(&simulator->socket, &burst);
		if (!error && simulator->mode == MODE_PLAIN)
			error = guest_gro_write(&simulator->tap, &burst);
		else if (!error)
			error = endpoint_write(&simulator->tap, &burst);
	}
	burst_done(&burst);
	return error;
}

static int run(struct simulator *simulator)
{
	pthread_t thread;
	int error = endpoint_open_tap(
		simulator->tap_name, simulator->mode != MODE_PLAIN, &simulator->tap);

	if (error)
		return error;
	error = endpoint_from_fd(
		(int)simulator->fd, simulator->mode == MODE_VNET_HDR, &simulator->socket);
	if (error)
		return error;
	error = -pthread_create(&thread, NULL, pump_to_socket, simulator);
	if (error)
		return error;
	puts("ready");
	fflush(stdout);
	return pump_to_tap(simulator);
}

int main(int argc, char **argv)
{
	struct simulator simulator = {.mtu = 1500, .fd = UINT32_MAX};
	char error_text[OPTIONS_ERROR_SIZE];
	int first, error;

	if (options_parse(option_table, array_length(option_table), argc, argv, &simulator,
		    error_text, &first) < 0) {
		log_error("simulator", "%s", error_text);
		return 1;
	}
	if (simulator.wants_help) {
		options_print_help(stdout, "vm-simulator --tap NAME --fd FD [OPTION...]",
			option_table, array_length(option_table));
		return 0;
	}
	if (!simulator.tap_name || simulator.fd == UINT32_MAX ||
		simulator.stall_every_s < simulator.stall_s) {
		log_error("simulator",
			"--tap and --fd are needed; --stall-every is at least --stall");
		return 1;
	}
	error = run(&simulator);
	log_error("simulator", "%s", strerror(-error));
	return 1;
}
