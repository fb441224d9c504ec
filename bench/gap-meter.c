/*
 * gap-meter: sends a small UDP datagram every half millisecond from one socket to another and tells
 * for how long none arrived: how long the way stood still, whatever queues it has. The kernel
 * stamps what arrives, so that a late reader does not count. Prints the longest gap that touches
 * each tenth of a second as one line of JSON.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/options.h"
#include "base/text.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define INTERVAL_NS 500000
#define BIN_NS      100000000
#define SECONDS_MAX 600
#define BINS_MAX    (SECONDS_MAX * 10)

struct meter {
	uint32_t source_fd; /* connected to the sink's address */
	uint32_t sink_fd;
	uint32_t seconds;
	bool wants_help;
	uint64_t started_ns;
	uint64_t sent;
	uint64_t received;
	uint64_t last_ns; /* of the latest arrival, or the start */
	uint64_t worst_ns[BINS_MAX];
};

static int parse_source_fd(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 0, INT_MAX, &((struct meter *)context)->source_fd);
}

static int parse_sink_fd(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 0, INT_MAX, &((struct meter *)context)->sink_fd);
}

static int parse_seconds(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 1, SECONDS_MAX, &((struct meter *)context)->seconds);
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct meter *)context)->wants_help = true;
	return 0;
}

static const struct option_entry option_table[] = {
	{"source-fd", 0, "FD", "UDP socket, connected to the other one's address", parse_source_fd},
	{"sink-fd", 0, "FD", "UDP socket, bound to that address", parse_sink_fd},
	{"seconds", 0, "N", "how long (1)", parse_seconds},
	{"help", 'h', NULL, "print this", parse_help},
};

/* The clock of SO_TIMESTAMPNS. */
static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t arrival_ns(struct msghdr *message)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	struct timespec stamp;

	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_TIMESTAMPNS)
		return now_ns();
	memcpy(&stamp, CMSG_DATA(header), sizeof(stamp));
	return (uint64_t)stamp.tv_sec * 1000000000 + (uint64_t)stamp.tv_nsec;
}

/* Notes the gap in every tenth of a second that it touches: a long one is nowhere overlooked. */
static void end_gap(struct meter *meter, uint64_t now)
{
	uint64_t gap_ns = now > meter->last_ns ? now - meter->last_ns : 0;
	uint64_t last_bin = (meter->last_ns + gap_ns - meter->started_ns) / BIN_NS;

	for (uint64_t bin = (meter->last_ns - meter->started_ns) / BIN_NS;
		bin <= last_bin && bin < BINS_MAX; bin++)
		if (meter->worst_ns[bin] < gap_ns)
			meter->worst_ns[bin] = gap_ns;
	meter->last_ns += gap_ns;
}

static void *receive_all(void *argument)
{
	struct meter *meter = argument;
	char control[CMSG_SPACE(sizeof(struct timespec))];

	for (;;) {
		uint64_t sent_ns;
		struct iovec part = {&sent_ns, sizeof(sent_ns)};
		struct msghdr message = {
			.msg_iov = &part,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};

		if (recvmsg((int)meter->sink_fd, &message, 0) == sizeof(sent_ns)) {
			meter->received++;
			end_gap(meter, arrival_ns(&message));
		}
	}
	return NULL;
}

static void send_all(struct meter *meter)
{
	uint64_t next_ns = meter->started_ns;
	uint64_t end_ns = meter->started_ns + meter->seconds * (uint64_t)1000000000;

	while (next_ns < end_ns) {
		uint64_t sent_ns = now_ns();
		struct timespec pause = {0};

		if (send((int)meter->source_fd, &sent_ns, sizeof(sent_ns), MSG_DONTWAIT) > 0)
			meter->sent++;
		next_ns += INTERVAL_NS;
		sent_ns = now_ns();
		pause.tv_nsec = next_ns > sent_ns ? (long)(next_ns - sent_ns) : 0;
		nanosleep(&pause, NULL);
	}
}

static int run(struct meter *meter)
{
	const struct sched_param priority = {.sched_priority = 1};
	const int on = 1;
	pthread_t receiver;
	int error;

	if (setsockopt((int)meter->sink_fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0)
		return -errno;
	/* So that this program's own turn to run is not what is measured. */
	if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0)
		return -errno;
	meter->started_ns = meter->last_ns = now_ns();
	error = -pthread_create(&receiver, NULL, receive_all, meter);
	if (error)
		return error;
	send_all(meter);
	pthread_cancel(receiver);
	pthread_join(receiver, NULL);
	end_gap(meter, now_ns());
	return 0;
}

static void print_result(const struct meter *meter)
{
	printf("{\"sent\": %llu, \"received\": %llu, \"gaps_ms\": [",
		(unsigned long long)meter->sent, (unsigned long long)meter->received);
	for (uint32_t i = 0; i < meter->seconds * 10; i++)
		printf("%s%.3f", i ? ", " : "", (double)meter->worst_ns[i] / 1e6);
	puts("]}");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static struct meter meter = {
		.source_fd = UINT32_MAX,
		.sink_fd = UINT32_MAX,
		.seconds = 1,
	};
	char error_text[OPTIONS_ERROR_SIZE];
	int first, error;

	if (options_parse(option_table, array_length(option_table), argc, argv, &meter, error_text,
		    &first) < 0) {
		log_error("gap-meter", "%s", error_text);
		return 1;
	}
	if (meter.wants_help) {
		options_print_help(stdout, "gap-meter --source-fd FD --sink-fd FD [OPTION...]",
			option_table, array_length(option_table));
		return 0;
	}
	error = run(&meter);
	if (error) {
		log_error("gap-meter", "%s", strerror(-error));
		return 1;
	}
	print_result(&meter);
	return 0;
}
