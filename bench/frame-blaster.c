/*
 * frame-blaster: a source and a sink of frames without any TCP behind them. The source sends as
 * fast as its endpoint takes frames, or, with a window, no further ahead of the sink than that, so
 * that a queue without backpressure loses nothing. Prints what happened as one line of JSON.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "flow-options.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

struct blaster {
	struct flow_options common; /* the first: flow_parse_*() rely on it */
	int source_fd;
	int sink_fd; /* -1: none */
	uint32_t window;
	uint32_t milliseconds;
	struct endpoint source;
	struct endpoint sink;
	_Atomic uint64_t sent;
	_Atomic uint64_t received;
	_Atomic uint64_t received_bytes;
	uint64_t lost; /* given up, so that one lost frame doesn't close the window for ever */
};

static int parse_fd(const char *argument, int *ret_fd)
{
	uint32_t fd;
	int error = text_to_uint32(argument, 0, INT_MAX, &fd);

	if (!error)
		*ret_fd = (int)fd;
	return error;
}

static int parse_source_fd(void *context, const char *argument, char *error)
{
	return parse_fd(argument, &((struct blaster *)context)->source_fd);
}

static int parse_sink_fd(void *context, const char *argument, char *error)
{
	return parse_fd(argument, &((struct blaster *)context)->sink_fd);
}

static int parse_protocol(void *context, const char *argument, char *error)
{
	struct blaster *blaster = context;

	if (strcmp(argument, "tcp") != 0 && strcmp(argument, "udp") != 0)
		return -EINVAL;
	blaster->common.flow.protocol = *argument == 't' ? IPPROTO_TCP : IPPROTO_UDP;
	return 0;
}

static int parse_window(void *context, const char *argument, char *error)
{
	return text_to_uint32(
		argument, BURST_FRAMES, 1 << 20, &((struct blaster *)context)->window);
}

static int parse_milliseconds(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 1, INT_MAX, &((struct blaster *)context)->milliseconds);
}

static const struct option_entry option_table[] = {
	{"source-fd", 0, "FD", "a VM's socket or a TAP, to be written", parse_source_fd},
	{"sink-fd", 0, "FD", "a VM's socket or a TAP, to be read", parse_sink_fd},
	{"window", 0, "FRAMES", "how far the source may be ahead of the sink", parse_window},
	{"milliseconds", 0, "N", "how long (1000)", parse_milliseconds},
	{"protocol", 0, "NAME", "udp (the default) or tcp", parse_protocol},
	FLOW_OPTIONS,
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool is_of_flow(const struct burst_frame *frame, const struct flow *flow)
{
	const size_t destination = ETHERNET_HEADER + 16;

	return frame->length >= destination + sizeof(flow->destination) &&
	       memcmp(frame->data + destination, &flow->destination, sizeof(flow->destination)) ==
		       0;
}

static void *run_sink(void *argument)
{
	struct blaster *blaster = argument;
	struct burst burst;
	int error = burst_init(&burst, ENDPOINT_FRAME_MAX);

	while (!error) {
		uint64_t frames = 0, bytes = 0;

		error = endpoint_read(&blaster->sink, &burst);
		for (size_t i = 0; !error && i < burst.count; i++)
			if (is_of_flow(&burst.frames[i], &blaster->common.flow)) {
				frames++;
				bytes += burst.frames[i].length;
			}
		atomic_fetch_add(&blaster->received_bytes, bytes);
		atomic_fetch_add(&blaster->received, frames);
	}
	log_error("blaster", "sink: %s", strerror(-error));
	exit(1);
}

/* Waits until the window has room for a burst. What did not come in a tenth of a second is lost. */
static void wait_for_window(struct blaster *blaster)
{
	const uint64_t patience_ns = 100000000;
	uint64_t deadline = now_ns() + patience_ns;

	if (blaster->window == 0)
		return;
	while (blaster->sent + BURST_FRAMES > blaster->received + blaster->lost + blaster->window) {
		if (now_ns() > deadline)
			blaster->lost = blaster->sent - blaster->received;
		sched_yield();
	}
}

static int run_source(struct blaster *blaster)
{
	uint64_t end = now_ns() + blaster->milliseconds * (uint64_t)1000000;
	struct burst burst;
	int error = burst_init(&burst, blaster->common.size);

	if (!error)
		test_frames_fill(&burst, &blaster->common.flow, blaster->common.size);
	while (!error && now_ns() < end) {
		wait_for_window(blaster);
		error = endpoint_write(&blaster->source, &burst);
		atomic_fetch_add(&blaster->sent, burst.count);
		if (blaster->common.flow.protocol == IPPROTO_TCP)
			test_frames_advance(&burst);
	}
	burst_done(&burst);
	return error;
}

static int run(struct blaster *blaster)
{
	bool has_header = blaster->common.has_header;
	pthread_t thread;
	uint64_t started;
	int error = endpoint_from_fd(blaster->source_fd, has_header, &blaster->source);

	if (!error && blaster->sink_fd >= 0)
		error = endpoint_from_fd(blaster->sink_fd, has_header, &blaster->sink);
	if (!error && blaster->sink_fd >= 0)
		error = -pthread_create(&thread, NULL, run_sink, blaster);
	if (error)
		return error;
	started = now_ns();
	error = run_source(blaster);
	if (error)
		return error;
	printf("{\"seconds\": %.6f, \"sent\": %llu, \"received\": %llu, \"received_bytes\": "
	       "%llu}\n",
		(double)(now_ns() - started) / 1e9, (unsigned long long)blaster->sent,
		(unsigned long long)blaster->received, (unsigned long long)blaster->received_bytes);
	return 0;
}

int main(int argc, char **argv)
{
	struct blaster blaster = {
		.common = {.size = 60, .flow.protocol = IPPROTO_UDP},
		.source_fd = -1,
		.sink_fd = -1,
		.milliseconds = 1000,
	};
	char error_text[OPTIONS_ERROR_SIZE];
	int first, error;

	if (options_parse(option_table, array_length(option_table), argc, argv, &blaster,
		    error_text, &first) < 0) {
		log_error("blaster", "%s", error_text);
		return 1;
	}
	if (blaster.common.wants_help) {
		options_print_help(stdout,
			"frame-blaster --source-fd FD [--sink-fd FD] [OPTION...]", option_table,
			array_length(option_table));
		return 0;
	}
	if (blaster.source_fd < 0 || (blaster.window && blaster.sink_fd < 0)) {
		log_error("blaster", "--source-fd is needed, and --window needs --sink-fd");
		return 1;
	}
	error = run(&blaster);
	if (error)
		log_error("blaster", "%s", strerror(-error));
	return error ? 1 : 0;
}
