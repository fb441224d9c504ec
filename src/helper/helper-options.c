#include "helper/helper-options.h"

#include "base/cleanup.h"
#include "helper/socket-server.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static int refuse(char *error, const char *text)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "%s", text);
	return -EINVAL;
}

static int parse_fd(void *context, const char *argument, char *error)
{
	struct helper_options *options = context;
	uint32_t fd;

	if (text_to_uint32(argument, 0, INT_MAX, &fd) < 0)
		return refuse(error, "the number of an inherited file descriptor is needed");
	if (fd == STDOUT_FILENO || fd == STDERR_FILENO)
		return refuse(error, "it is the helper's output; use another descriptor");
	options->fd = (int)fd;
	return 0;
}

static int parse_path(const char *argument, const char **ret_path, char *error)
{
	if (!*argument)
		return refuse(error, "a path is needed");
	if (strlen(argument) > SOCKET_SERVER_PATH_MAX)
		return refuse(error, "a socket's path has at most 107 bytes; use a shorter one");
	*ret_path = argument;
	return 0;
}

static int parse_socket(void *context, const char *argument, char *error)
{
	return parse_path(argument, &((struct helper_options *)context)->socket_path, error);
}

static int parse_stream(void *context, const char *argument, char *error)
{
	return parse_path(argument, &((struct helper_options *)context)->stream_path, error);
}

static int parse_vhost_user(void *context, const char *argument, char *error)
{
	return parse_path(argument, &((struct helper_options *)context)->vhost_user_path, error);
}

static int parse_queues(void *context, const char *argument, char *error)
{
	struct helper_options *options = context;

	if (text_to_uint32(argument, 1, HELPER_QUEUES_MAX, &options->queues) < 0)
		return refuse(error, "a number from 1 to 8");
	return 0;
}

static int parse_tso(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->has_tso = true;
	return 0;
}

static int parse_checksum_offload(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->has_checksum_offload = true;
	return 0;
}

static int parse_vnet_hdr(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->has_vnet_hdr = true;
	return 0;
}

static int parse_stats_interval(void *context, const char *argument, char *error)
{
	struct helper_options *options = context;

	if (text_to_uint32(argument, 1, INT_MAX, &options->stats_interval_seconds) < 0)
		return refuse(error, "a whole number of seconds, at least 1, is needed");
	return 0;
}

static int parse_verbose(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->is_verbose = true;
	return 0;
}

static int parse_version(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->action = HELPER_PRINT_VERSION;
	return 0;
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->action = HELPER_PRINT_HELP;
	return 0;
}

static int parse_list(void *context, const char *argument, char *error)
{
	((struct helper_options *)context)->action = HELPER_LIST_SHARED_INTERFACES;
	return 0;
}

/* Options without help are the original's that this helper does not have yet. */
static const struct option_entry option_table[] = {
	{"fd", 'f', "FD", "inherited connected datagram or stream socket of the VM", parse_fd},
	{"socket", 's', "PATH", "make a datagram socket at PATH for the VM", parse_socket},
	{"stream", 0, "PATH", "make a stream socket at PATH; a frame follows its length",
		parse_stream},
	{"vhost-user", 0, "PATH", "make a vhost-user socket at PATH for the VM", parse_vhost_user},
	{"queues", 0, "N", "with --vhost-user: pairs of queues, up to 8", parse_queues},
	{"enable-tso", 0, NULL, "the VM's socket carries frames of up to 64 KiB", parse_tso},
	{"enable-checksum-offload", 0, NULL, "goes with --enable-tso", parse_checksum_offload},
	{"vnet-hdr", 0, NULL, "12 bytes of virtio-net header precede each frame", parse_vnet_hdr},
	{.more = interface_option_table, .more_count = INTERFACE_OPTIONS_COUNT},
	{"stats-interval", 0, "SECONDS", "log counters that often", parse_stats_interval},
	{"list-shared-interfaces", 0, NULL, "list what bridged mode may use", parse_list},
	{"verbose", 'v', NULL, "log more", parse_verbose},
	{"version", 0, NULL, "print version and commit", parse_version},
	{"help", 'h', NULL, "print this", parse_help},
};

/* Each call ends at a positional argument, which is then the next call's argv[0]. */
static int parse_all(int argc, char **argv, struct helper_options *options, char *error)
{
	int index = 0;

	do {
		int taken;
		int result = options_parse(option_table, array_length(option_table), argc - index,
			argv + index, options, error, &taken);

		if (result < 0)
			return result;
		index += taken;
	} while (index < argc && strcmp(argv[index - 1], "--") != 0);
	return 0;
}

static int check_transport(const struct helper_options *options, char *error)
{
	int given = (options->fd >= 0) + !!options->socket_path + !!options->stream_path +
		    !!options->vhost_user_path;

	if (given > 1)
		return refuse(error, "--fd, --socket, --stream and --vhost-user exclude each "
				     "other; leave all but one out");
	if (given < 1)
		return refuse(error, "one of --fd, --socket, --stream and --vhost-user is needed; "
				     "--help lists all options");
	if (options->queues && !options->vhost_user_path)
		return refuse(error, "--queues needs --vhost-user: a socket has no queues");
	return 0;
}

static int check_offloads(const struct helper_options *options, char *error)
{
	if (options->has_tso != options->has_checksum_offload)
		return refuse(error, "--enable-tso and --enable-checksum-offload go together; give "
				     "both or none");
	if (options->has_tso && options->has_vnet_hdr)
		return refuse(error, "--vnet-hdr and --enable-tso exclude each other: the header "
				     "tells all; leave one out");
	if (options->vhost_user_path && (options->has_tso || options->has_vnet_hdr))
		return refuse(error, "--vhost-user negotiates offloads by itself; leave "
				     "--enable-tso, --enable-checksum-offload and --vnet-hdr out");
	return 0;
}

static int check_conflicts(const struct helper_options *options, char *error)
{
	int result = check_transport(options, error);

	if (result == 0)
		result = check_offloads(options, error);
	return result < 0 ? result : interface_options_check(&options->interface, error);
}

enum offload_mode helper_options_offload_mode(const struct helper_options *options)
{
	if (options->has_vnet_hdr)
		return OFFLOAD_VNET_HDR;
	return options->has_tso ? OFFLOAD_RAW : OFFLOAD_NONE;
}

const char *helper_options_path(const struct helper_options *options)
{
	if (options->socket_path)
		return options->socket_path;
	return options->stream_path ? options->stream_path : options->vhost_user_path;
}

int helper_options_parse(int argc, char **argv, struct helper_options *ret_options, char *error)
{
	struct helper_options options = {.action = HELPER_RUN, .fd = -1};
	int result = parse_all(argc, argv, &options, error);

	if (result == 0 && options.action == HELPER_RUN)
		result = check_conflicts(&options, error);
	if (result == 0)
		*ret_options = options;
	return result;
}

void helper_options_print_help(FILE *file)
{
	options_print_help(file,
		"vmnet-helper (--fd FD | --socket PATH | --stream PATH | --vhost-user PATH) "
		"[OPTION]...",
		option_table, array_length(option_table));
}
