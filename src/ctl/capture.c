/* vmnetctl capture: what passes on VMs' interfaces, as pcapng, until it is ended. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "ctl/broker-call.h"
#include "ctl/capture-blocks.h"
#include "ctl/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>

#define PIECE_SIZE (1u << 20)
/* How long the end of a broker takes to be known after that of its captures. */
#define GONE_PATIENCE_MS 500
#define DURATION_MAX_S   (30u * 86400)
#define PACKETS_MAX      4294967295u
#define SNAPLEN_MIN      64
#define SNAPLEN_MAX      262144

struct capture_options {
	const char *file;                    /* NULL: stdout, if that is no terminal */
	uint32_t snaplen, count, duration_s; /* 0: not said */
};

/* A capture that goes on until it is told to end. */
struct capturing {
	const struct ctl *ctl;
	vmnet_broker_t *broker;
	const char *target;
	int output;
	int signals;
	int stream;          /* -1: none */
	int64_t deadline_ms; /* 0: none */
	bool is_ending;      /* the rest is being read */
	struct capture_blocks blocks;
};

static struct capture_options *options_of(void *context)
{
	return ((struct ctl *)context)->options;
}

static int parse_write(void *context, const char *argument, char *error)
{
	options_of(context)->file = argument;
	return 0;
}

static int parse_snaplen(void *context, const char *argument, char *error)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "bytes from %d to %d", SNAPLEN_MIN, SNAPLEN_MAX);
	return text_to_uint32(argument, SNAPLEN_MIN, SNAPLEN_MAX, &options_of(context)->snaplen);
}

static int parse_count(void *context, const char *argument, char *error)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "a number of packets from 1 to %u", PACKETS_MAX);
	return text_to_uint32(argument, 1, PACKETS_MAX, &options_of(context)->count);
}

static int parse_duration(void *context, const char *argument, char *error)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "seconds from 1 to %u", DURATION_MAX_S);
	return text_to_uint32(argument, 1, DURATION_MAX_S, &options_of(context)->duration_s);
}

static const struct option_entry options_table[] = {
	{"write", 'w', "FILE", "the file to write; -: stdout, which it is unless said",
		parse_write},
	{"snaplen", 0, "BYTES", "how much of a packet is kept; all unless said", parse_snaplen},
	{"count", 0, "PACKETS", "end after so many", parse_count},
	{"duration", 0, "SECONDS", "end after so long", parse_duration},
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const struct capture_options *options_in(const struct capturing *capturing)
{
	return capturing->ctl->options;
}

/* --- the broker --- */

/* As the broker calls VMs' interfaces. */
static bool is_interface(const char *target)
{
	return strncmp(target, "vmtap", 5) == 0 && strlen(target) == 13 &&
	       strspn(target + 5, "0123456789abcdef") == 8;
}

static json_t *make_parameters(const struct capturing *capturing)
{
	const struct capture_options *options = options_in(capturing);
	json_t *parameters = json_pack("{s:s}",
		is_interface(capturing->target) ? "interface" : "network", capturing->target);

	if (options->snaplen)
		json_object_set_new(parameters, "snaplen", json_integer(options->snaplen));
	if (options->count)
		json_object_set_new(parameters, "count",
			json_integer((json_int_t)(options->count - capturing->blocks.packets)));
	return parameters;
}

static vmnet_broker_status_t start(struct capturing *capturing)
{
	cleanup_ctl_json json_t *parameters = make_parameters(capturing);
	cleanup_free char *text = parameters ? json_dumps(parameters, JSON_COMPACT) : NULL;
	cleanup_free char *reply = NULL;
	size_t count = 1;
	vmnet_broker_status_t status;

	/* An argument that is no UTF-8. */
	if (!text)
		return VMNET_BROKER_INVALID_REQUEST;
	status = vmnet_broker_call_with_fds(
		capturing->broker, "Capture", text, &reply, &capturing->stream, &count);
	if (status == VMNET_BROKER_SUCCESS && count == 0)
		return VMNET_BROKER_INVALID_REPLY;
	return status;
}

static bool was_counted(const struct capturing *capturing)
{
	const struct capture_options *options = options_in(capturing);

	return options->count && capturing->blocks.packets >= options->count;
}

/* Whether the capture ended because its broker did. */
static bool has_lost_broker(const struct capturing *capturing)
{
	struct pollfd waiter = {.fd = vmnet_broker_get_fd(capturing->broker), .events = POLLIN};

	return poll(&waiter, 1, GONE_PATIENCE_MS) == 1;
}

/* --- the packets --- */

static int report_write(const struct capturing *capturing)
{
	const char *file = options_in(capturing)->file;

	log_error(CTL_TAG, "the capture could not be written to %s: %s", file ? file : "stdout",
		strerror(errno));
	return -1;
}

static int write_all(const struct capturing *capturing, const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t written = write(capturing->output, bytes, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return report_write(capturing);
		bytes += written;
		size -= (size_t)written;
	}
	return 0;
}

static int report_stream(void)
{
	log_error(CTL_TAG, "capture: what the broker sent cannot be understood; is it of another "
			   "version than this program? See vmnetctl --version");
	return -1;
}

/*
 * Returns 1 when there was a piece, 0 at the end, -1 when it could not be written. What a killed
 * broker cut off would make the next section unreadable, so a block is kept until it is whole.
 */
static int copy_piece(struct capturing *capturing)
{
	static uint8_t piece[CAPTURE_BLOCKS_MAX + PIECE_SIZE];
	struct capture_blocks *blocks = &capturing->blocks;
	size_t kept = blocks->size;
	ssize_t size = read(capturing->stream, piece + kept, PIECE_SIZE);
	size_t whole;

	if (size < 0 && (errno == EINTR || errno == EAGAIN))
		return 1;
	if (size <= 0)
		return 0;
	if (capture_blocks_take(blocks, piece + kept, (size_t)size) < 0)
		return report_stream();
	whole = kept + (size_t)size - blocks->size;
	if (write_all(capturing, piece, whole) < 0)
		return -1;
	memmove(piece, piece + whole, blocks->size);
	return 1;
}

/* The other side writes what belongs to the end. Another signal ends us at once. */
static void ask_for_end(struct capturing *capturing)
{
	struct signalfd_siginfo taken;
	sigset_t all;

	/* Or it would be that other one. */
	(void)!read(capturing->signals, &taken, sizeof(taken));
	sigemptyset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	capturing->is_ending = true;
	if (capturing->stream >= 0)
		shutdown(capturing->stream, SHUT_WR);
}

static int remaining_ms(const struct capturing *capturing)
{
	int64_t remaining = capturing->deadline_ms - now_ms();

	if (!capturing->deadline_ms || capturing->is_ending)
		return -1;
	return remaining > 0 ? (int)remaining : 0;
}

/* Until the stream ends. 0, or -1 when it could not be written. */
static int copy(struct capturing *capturing)
{
	int result = 1;

	while (result > 0) {
		struct pollfd waiters[] = {
			{.fd = capturing->stream, .events = POLLIN},
			{.fd = capturing->is_ending ? -1 : capturing->signals, .events = POLLIN},
		};
		int ready = poll(waiters, 2, remaining_ms(capturing));

		if (ready == 0 || (ready > 0 && waiters[1].revents))
			ask_for_end(capturing);
		if (ready > 0 && waiters[0].revents)
			result = copy_piece(capturing);
	}
	fd_close(take_fd(&capturing->stream));
	capturing->blocks.size = 0;
	return result;
}

/* Waits for the next broker. False when there is no time for that. */
static bool reconnect(struct capturing *capturing)
{
	for (;;) {
		struct pollfd waiters[] = {
			{.fd = vmnet_broker_get_fd(capturing->broker), .events = POLLIN},
			{.fd = capturing->signals, .events = POLLIN},
		};
		int ready = poll(waiters, 2, remaining_ms(capturing));

		if (ready == 0 || (ready > 0 && waiters[1].revents))
			return false;
		if (vmnet_broker_dispatch(capturing->broker) == VMNET_BROKER_SUCCESS)
			return true;
	}
}

/* Until the stream ends. 1 when the broker has gone, 0 when it is the end of the capture, -1 when
 * it could not be written. */
static int copy_section(struct capturing *capturing)
{
	if (copy(capturing) < 0)
		return -1;
	if (capturing->is_ending || was_counted(capturing))
		return 0;
	if (!has_lost_broker(capturing)) {
		log_info(CTL_TAG, "capture: %s has gone", capturing->target);
		return 0;
	}
	log_warn(CTL_TAG, "capture: the broker has gone; what passes until it is back is missing");
	return 1;
}

/*
 * Over restarts of the broker, each of which makes a new section. One that ends may take a
 * connection still, and never answer. 0, or 1: an exit status.
 */
static int follow(struct capturing *capturing)
{
	vmnet_broker_status_t status = VMNET_BROKER_SUCCESS;

	while (status == VMNET_BROKER_SUCCESS || status == VMNET_BROKER_CONNECTION_FAILURE) {
		int result = status == VMNET_BROKER_SUCCESS ? copy_section(capturing) : 1;

		if (result <= 0)
			return result < 0 ? 1 : 0;
		if (!reconnect(capturing))
			return 0;
		status = start(capturing);
	}
	ctl_report_failure(capturing->broker, status);
	return 1;
}

/* --- around it --- */

static bool is_for_terminal(const struct capture_options *options)
{
	return (!options->file || strcmp(options->file, "-") == 0) && isatty(STDOUT_FILENO);
}

static int open_output(const struct capture_options *options)
{
	int fd;

	if (!options->file || strcmp(options->file, "-") == 0)
		return STDOUT_FILENO;
	/* It may have what others may not read. */
	fd = open(options->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		log_error(CTL_TAG, "capture: %s could not be opened: %s", options->file,
			strerror(errno));
	return fd;
}

/* Where whoever reads stdout does not take it for packets. */
static void print_summary(const struct capturing *capturing)
{
	const struct capture_blocks *blocks = &capturing->blocks;
	FILE *file = capturing->output == STDOUT_FILENO ? stderr : stdout;

	fprintf(file,
		capturing->ctl->json
			? "{\"packets\":%llu,\"bytes\":%llu,\"interfaces\":%llu,\"dropped\":%llu}\n"
			: "%llu packets of %llu bytes on %llu interfaces, %llu dropped\n",
		(unsigned long long)blocks->packets, (unsigned long long)blocks->bytes,
		(unsigned long long)blocks->interfaces, (unsigned long long)blocks->dropped);
}

static int open_signals(void)
{
	sigset_t ends;

	/* Who reads our output may go: then writing fails, and that is told. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	return signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What is there already is kept until packets come in its place. */
static int capture(struct capturing *capturing)
{
	vmnet_broker_status_t status = start(capturing);
	int exit_status;

	if (status != VMNET_BROKER_SUCCESS) {
		ctl_report_failure(capturing->broker, status);
		return 1;
	}
	capturing->output = open_output(options_in(capturing));
	if (capturing->output < 0)
		return 1;
	exit_status = follow(capturing);
	if (exit_status == 0)
		print_summary(capturing);
	return exit_status;
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	const struct capture_options *options = ctl->options;
	cleanup_broker vmnet_broker_t *broker = NULL;
	struct capturing capturing = {
		.ctl = ctl, .target = arguments[0], .output = -1, .signals = -1, .stream = -1};

	if (arguments_count != 1) {
		log_error(CTL_TAG, "capture: say which network or interface; vmnetctl networks "
				   "and vmnetctl interfaces list them");
		return 1;
	}
	if (is_for_terminal(options)) {
		log_error(CTL_TAG,
			"capture: packets are nothing for a terminal; write a file with -w FILE, "
			"or see them with \"vmnetctl capture ... | tcpdump -n -r -\"");
		return 1;
	}
	broker = ctl_connect(ctl);
	if (!broker)
		return 1;
	capturing.broker = broker;
	capturing.signals = open_signals();
	if (options->duration_s)
		capturing.deadline_ms = now_ms() + (int64_t)options->duration_s * 1000;
	return capture(&capturing);
}

const struct command capture_command = {
	.name = "capture",
	.help = "write what passes on VMs' interfaces, for Wireshark and tcpdump",
	.usage = "[options] NETWORK|INTERFACE",
	.options = options_table,
	.options_count = array_length(options_table),
	.options_size = sizeof(struct capture_options),
	.arguments_max = 1,
	.run = run,
};
