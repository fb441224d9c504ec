#include "run/run-options.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#define USAGE "vmnet-client [options] -- command [argument ...]"

static const char *const attach_names[] = {
	[RUN_ATTACH_SOCKET] = "socket",
	[RUN_ATTACH_NATIVE] = "native",
};
static_assert(array_length(attach_names) == RUN_ATTACH_COUNT, "one name per attach kind");

static int refuse(char *error, const char *reason)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "%s", reason);
	return -EINVAL;
}

static int parse_unavailable(void *context, const char *argument, char *error)
{
	return refuse(error, "is not available yet; leave it out");
}

static int parse_network(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (!network_name_is_valid(argument))
		return refuse(error, "a network's name is 1 to 32 letters, digits, '_', '.' or "
				     "'-' and begins with a letter or digit");
	options->network = argument;
	return 0;
}

static int parse_operation_mode(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (strcmp(argument, "bridged") == 0)
		return refuse(error, "is not available yet; use shared or host");
	if (strcmp(argument, "shared") != 0 && strcmp(argument, "host") != 0)
		return refuse(error, "one of shared, host");
	options->operation_mode = argument;
	return 0;
}

static int parse_interface_id(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (text_to_uuid(argument, &options->interface_id) < 0)
		return refuse(error, "a UUID, such as 4C2F9A60-0F3D-4F0E-9A55-6B0C7A1D2E3F");
	options->has_interface_id = true;
	return 0;
}

static int parse_mac(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (text_to_mac(argument, &options->mac) < 0)
		return refuse(error, "a MAC address, such as 52:54:00:12:34:56");
	if (!mac_is_unicast(options->mac))
		return refuse(error, "a VM's MAC address is neither multicast nor all zero; make "
				     "its first byte even, such as 52");
	options->has_mac = true;
	return 0;
}

static int parse_hostname(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (!hostname_is_valid(argument))
		return refuse(error, "a host's name is 1 to 63 letters, digits and inner hyphens");
	options->hostname = argument;
	return 0;
}

static int parse_attach(void *context, const char *argument, char *error)
{
	struct run_options *options = context;

	if (strcmp(argument, "stream") == 0 || strcmp(argument, "vhost-user") == 0)
		return refuse(error, "is not available yet; use socket or native");
	for (size_t i = 0; i < RUN_ATTACH_COUNT; i++)
		if (strcmp(argument, attach_names[i]) == 0) {
			options->attach = (enum run_attach)i;
			return 0;
		}
	return refuse(error, "one of socket, native");
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
	{"network", 0, "NAME", "network to join, as the broker's configuration names it",
		parse_network},
	{"operation-mode", 0, "MODE", "without --network: shared (default) or host",
		parse_operation_mode},
	{"attach", 0, "KIND", "socket (default): fd 4 is a datagram socket; native: a TAP",
		parse_attach},
	{"queues", 0, "N", "with --attach native: N TAP queues, at fds 4 to 3+N", parse_queues},
	{"interface-id", 'i', "UUID", "the same id gets the same MAC and IPv4 address again",
		parse_interface_id},
	{"mac", 0, "MAC", "the VM's MAC address", parse_mac},
	{"hostname", 0, "NAME", "the VM's name in the network's DNS", parse_hostname},
	{"qemu", 0, NULL, "the command is QEMU: add its -netdev and -device options", parse_qemu},
	{"stats-interval", 0, "SECONDS", "log vmnet-helper's counters this often",
		parse_stats_interval},
	{"verbose", 'v', NULL, "log more", parse_verbose},
	{"version", 0, NULL, "print the version and exit", parse_version},
	{"help", 'h', NULL, "print this and exit", parse_help},
	{"shared-interface", 0, "NAME", NULL, parse_unavailable},
	{"start-address", 0, "ADDRESS", NULL, parse_unavailable},
	{"end-address", 0, "ADDRESS", NULL, parse_unavailable},
	{"subnet-mask", 0, "MASK", NULL, parse_unavailable},
	{"enable-isolation", 0, NULL, NULL, parse_unavailable},
	{"enable-tso", 0, NULL, NULL, parse_unavailable},
	{"enable-checksum-offload", 0, NULL, NULL, parse_unavailable},
};

static int check_conflicts(const struct run_options *options, char *error)
{
	if (options->network && options->operation_mode)
		return refuse(error, "option --network excludes --operation-mode: the network has "
				     "its own mode; leave --operation-mode out");
	if (options->attach != RUN_ATTACH_NATIVE && options->queues)
		return refuse(error, "option --queues needs --attach native: a socket has no "
				     "queues");
	if (options->attach == RUN_ATTACH_NATIVE && options->stats_interval_s)
		return refuse(error, "option --stats-interval excludes --attach native: no helper "
				     "runs that could count; leave one of them out");
	return 0;
}

int run_options_parse(int argc, char **argv, struct run_options *ret_options, char *error)
{
	struct run_options options = {0};
	int first;
	int result;

	result = options_parse(table, array_length(table), argc, argv, &options, error, &first);
	if (result < 0)
		return result;
	result = check_conflicts(&options, error);
	if (result < 0)
		return result;
	options.command = argv + first;
	*ret_options = options;
	return 0;
}

const char *run_options_network(const struct run_options *options)
{
	if (options->network)
		return options->network;
	return options->operation_mode ? options->operation_mode : "shared";
}

uint32_t run_options_queues(const struct run_options *options)
{
	return options->queues ? options->queues : 1;
}

void run_options_print_help(FILE *file)
{
	options_print_help(file, USAGE, table, array_length(table));
}
