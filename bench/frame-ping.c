/*
 * frame-ping: round trips of ICMP echo through a VM's socket or a TAP, with nothing else between
 * this program and the cable, so that two ways to attach differ by the cable alone. Prints one line
 * of JSON.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "flow-options.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#define COUNT_MAX 65535 /* an echo's sequence number has 16 bits */

struct ping {
	struct flow_options common; /* the first: flow_parse_*() rely on it */
	uint32_t fd;
	uint32_t count;
	uint32_t interval_us;
	struct endpoint endpoint;
	uint64_t times_ns[COUNT_MAX];
	size_t answered;
};

static int parse_fd(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 0, INT_MAX, &((struct ping *)context)->fd);
}

static int parse_count(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 1, COUNT_MAX, &((struct ping *)context)->count);
}

static int parse_interval(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 0, 1000000, &((struct ping *)context)->interval_us);
}

static const struct option_entry option_table[] = {
	{"fd", 0, "FD", "a VM's socket or a TAP", parse_fd},
	{"count", 0, "N", "echo requests (1000)", parse_count},
	{"interval", 0, "MICROSECONDS", "between them (1000)", parse_interval},
	FLOW_OPTIONS,
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Waits for the answer, and passes over everything else. 0: it did not come in a second. */
static int wait_for_reply(struct ping *ping, struct burst *burst, uint16_t id, uint16_t sequence)
{
	struct pollfd poll_fd = {.fd = ping->endpoint.fd, .events = POLLIN};

	while (poll(&poll_fd, 1, 1000) == 1) {
		int error = endpoint_read(&ping->endpoint, burst);

		if (error)
			return error;
		for (size_t i = 0; i < burst->count; i++)
			if (test_frame_is_echo_reply(&burst->frames[i], id, sequence))
				return 1;
	}
	return 0;
}

static int ping_once(struct ping *ping, struct burst *burst, uint16_t sequence)
{
	const uint16_t id = 0x7662;
	uint8_t frame[ENDPOINT_FRAME_MAX];
	struct burst request = {
		.frames[0] = {.data = frame, .length = ping->common.size},
		.count = 1,
	};
	uint64_t started;
	int result;

	test_frame_echo_request(frame, ping->common.size, &ping->common.flow, id, sequence);
	started = now_ns();
	result = endpoint_write(&ping->endpoint, &request);
	if (result == 0)
		result = wait_for_reply(ping, burst, id, sequence);
	if (result > 0)
		ping->times_ns[ping->answered++] = now_ns() - started;
	return result < 0 ? result : 0;
}

static int run(struct ping *ping)
{
	const struct timespec pause = {
		.tv_sec = ping->interval_us / 1000000,
		.tv_nsec = ping->interval_us % 1000000 * 1000L,
	};
	struct burst burst;
	int error = burst_init(&burst, ENDPOINT_FRAME_MAX);

	for (uint32_t i = 0; !error && i < ping->count; i++) {
		error = ping_once(ping, &burst, (uint16_t)i);
		nanosleep(&pause, NULL);
	}
	burst_done(&burst);
	return error;
}

static int compare_times(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

	return (a > b) - (a < b);
}

static void print_result(struct ping *ping)
{
	size_t count = ping->answered;

	qsort(ping->times_ns, count, sizeof(*ping->times_ns), compare_times);
	printf("{\"sent\": %u, \"answered\": %zu", ping->count, count);
	if (count > 0)
		printf(", \"median_us\": %.3f, \"p99_us\": %.3f",
			(double)ping->times_ns[count / 2] / 1e3,
			(double)ping->times_ns[count * 99 / 100] / 1e3);
	puts("}");
}

int main(int argc, char **argv)
{
	static struct ping ping = {
		.common = {.size = 98, .flow.protocol = IPPROTO_ICMP}, /* as ping(8) sends */
		.fd = UINT32_MAX,
		.count = 1000,
		.interval_us = 1000,
	};
	char error_text[OPTIONS_ERROR_SIZE];
	int first, error;

	if (options_parse(option_table, array_length(option_table), argc, argv, &ping, error_text,
		    &first) < 0) {
		log_error("ping", "%s", error_text);
		return 1;
	}
	if (ping.common.wants_help) {
		options_print_help(stdout, "frame-ping --fd FD [OPTION...]", option_table,
			array_length(option_table));
		return 0;
	}
	error = ping.fd == UINT32_MAX
			? -EINVAL
			: endpoint_from_fd((int)ping.fd, ping.common.has_header, &ping.endpoint);
	if (!error)
		error = run(&ping);
	if (error)
		log_error("ping", "--fd: %s", strerror(-error));
	else
		print_result(&ping);
	return error ? 1 : 0;
}
