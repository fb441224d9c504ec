#include "run/run-options.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#define USAGE "vmnet-client [options] -- command [argument ...]"

static const char *const attach_names[] = {
	[RUN_ATTACH_SOCKET] = "socket",
	[RUN_ATTACH_STREAM] = "stream",
	[RUN_ATTACH_VHOST_USER] = "vhost-user",
	[RUN_ATTACH_NATIVE] = "native",
	[RUN_ATTACH_TAP] = "tap",
};
static_assert(array_length(attach_names) == RUN_ATTACH_COUNT, "one name per attach kind");

static int refuse(char *error, const char *reason)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "%s", reason);
	return -EINVAL;
}

static int parse_attach(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	for (size_t i = 0; i < RUN_ATTACH_COUNT; i++)
		if (strcmp(argument, attach_names[i]) == 0) {
			options->attach = (enum run_attach)i;
			options->attach_was_named = true;
			return 0;
		}
	return refuse(error, "one of socket, stream, vhost-user, native, tap");
}

static int parse_queues(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (text_to_uint32(argument, 1, RUN_QUEUES_MAX, &options->queues) < 0)
		return refuse(error, "a number from 1 to 8");
	return 0;
}

static int parse_stats_interval(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (text_to_uint32(argument, 1, INT_MAX, &options->stats_interval_s) < 0)
		return refuse(error, "a whole number of seconds, at least 1, is needed");
	return 0;
}

static int parse_enable_tso(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->enable_tso = true;
	return 0;
}

static int parse_enable_checksum_offload(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->enable_checksum_offload = true;
	return 0;
}

static int parse_vnet_hdr(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->vnet_hdr = true;
	return 0;
}

static int parse_qemu(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->qemu = true;
	return 0;
}

static int parse_verbose(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->verbose = true;
	return 0;
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->show_help = true;
	return 0;
}

static int parse_version(void *context, const char *argument, char *error)
{
	((struct run_options *)context)->show_version = true;
	return 0;
}

static const struct option_entry table[] = {
	{.more = interface_option_table, .more_count = INTERFACE_OPTIONS_COUNT},
	{"attach", 0, "KIND",
		"fd 4 is a datagram socket (socket, default), a stream or a TAP (native); or "
		"vhost-user; or tap: by its name, $VMNET_INTERFACE_NAME",
		parse_attach},
	{"queues", 0, "N", "with --attach native: N TAP queues, at fds 4 to 3+N; or of vhost-user",
		parse_queues},
	{"enable-tso", 0, NULL, "with --enable-checksum-offload: sockets carry large frames whole",
		parse_enable_tso},
	{"enable-checksum-offload", 0, NULL,
		"with --enable-tso: the VM completes checksums and may leave them out",
		parse_enable_checksum_offload},
	{"vnet-hdr", 0, NULL, "sockets carry a virtio-net header of 12 bytes before each frame",
		parse_vnet_hdr},
	{"qemu", 0, NULL,
		"the command is QEMU: add its options; --attach is native then if not said",
		parse_qemu},
	{"stats-interval", 0, "SECONDS", "log vmnet-helper's counters this often",
		parse_stats_interval},
	{"verbose", 'v', NULL, "log more", parse_verbose},
	{"version", 0, NULL, "print the version and exit", parse_version},
	{"help", 'h', NULL, "print this and exit", parse_help},
};

static bool has_queues(const struct run_options *options)
{
	return options->attach == RUN_ATTACH_NATIVE || options->attach == RUN_ATTACH_VHOST_USER;
}

static bool wants_offload(const struct run_options *options)
{
	return options->enable_tso || options->enable_checksum_offload || options->vnet_hdr;
}

static bool queues_have_no_place(const struct run_options *options)
{
	return options->queues && !has_queues(options);
}

static bool nobody_counts(const struct run_options *options)
{
	return options->stats_interval_s && !run_options_need_helper(options);
}

static bool offload_is_half(const struct run_options *options)
{
	return options->enable_tso != options->enable_checksum_offload;
}

static bool offload_is_double(const struct run_options *options)
{
	return options->vnet_hdr && options->enable_tso;
}

static bool offload_is_negotiated(const struct run_options *options)
{
	return wants_offload(options) && options->attach != RUN_ATTACH_SOCKET &&
	       options->attach != RUN_ATTACH_STREAM;
}

static bool offload_confuses_qemu(const struct run_options *options)
{
	return wants_offload(options) && options->qemu;
}

/* The first that holds is told. */
static const struct {
	bool (*holds)(const struct run_options *options);
	const char *text;
} conflicts[] = {
	{offload_is_half, "options --enable-tso and --enable-checksum-offload need one another: "
			  "give both or neither"},
	{offload_is_double,
		"option --vnet-hdr excludes --enable-tso and --enable-checksum-offload: "
		"the header says what they would; leave them out"},
	{offload_is_negotiated,
		"options --enable-tso, --enable-checksum-offload and --vnet-hdr need --attach "
		"socket or stream: with others the VM program negotiates offloads "
		"by itself; leave them out"},
	{offload_confuses_qemu, "options --enable-tso, --enable-checksum-offload and --vnet-hdr "
				"exclude --qemu: over sockets QEMU takes finished frames only; use "
				"--attach native or vhost-user for offloads"},
	{queues_have_no_place, "option --queues needs --attach native or vhost-user: a socket has "
			       "no queues, and a TAP that is opened by its name has one"},
	{nobody_counts, "option --stats-interval excludes --attach native and tap: no helper runs "
			"that could count; leave one of them out"},
};

static int check_conflicts(const struct run_options *options, char *error)
{
	for (size_t i = 0; i < array_length(conflicts); i++)
		if (conflicts[i].holds(options))
			return refuse(error, conflicts[i].text);
	return interface_options_check(&options->interface, error);
}

/* docs/decisions/010-attach-for-qemu.md */
static void choose_attach(struct run_options *options)
{
	if (options->attach_was_named || !options->qemu)
		return;
	if (options->stats_interval_s || wants_offload(options))
		options->attach = RUN_ATTACH_STREAM;
	else
		options->attach = RUN_ATTACH_NATIVE;
}

int run_options_parse(int argc, char **argv, struct run_options *ret_options, char *error)
{
	struct run_options options = {0};
	int first;
	int result;

	result = options_parse(table, array_length(table), argc, argv, &options, error, &first);
	if (result < 0)
		return result;
	choose_attach(&options);
	result = check_conflicts(&options, error);
	if (result < 0)
		return result;
	options.command = argv + first;
	*ret_options = options;
	return 0;
}

bool run_options_need_helper(const struct run_options *options)
{
	return options->attach != RUN_ATTACH_NATIVE && options->attach != RUN_ATTACH_TAP;
}

uint32_t run_options_queues(const struct run_options *options)
{
	return options->queues ? options->queues : 1;
}

void run_options_print_help(FILE *file)
{
	options_print_help(file, USAGE, table, array_length(table));
}
