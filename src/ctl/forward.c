/* vmnetctl forward: ports of the host that lead to VMs, made, kept, listed and removed. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

#include <poll.h>
#include <string.h>

#define TARGET_SIZE 128

struct forward_options {
	const char *network;
	bool udp;
	bool pin;
	bool list;
	uint32_t removed; /* its id; 0: none */
};

static struct forward_options *options_of(void *context)
{
	return ((struct ctl *)context)->options;
}

static int parse_network(void *context, const char *argument, char *error)
{
	options_of(context)->network = argument;
	return 0;
}

static int parse_udp(void *context, const char *argument, char *error)
{
	options_of(context)->udp = true;
	return 0;
}

static int parse_pin(void *context, const char *argument, char *error)
{
	options_of(context)->pin = true;
	return 0;
}

static int parse_list(void *context, const char *argument, char *error)
{
	options_of(context)->list = true;
	return 0;
}

static int parse_remove(void *context, const char *argument, char *error)
{
	int result = text_to_uint32(argument, 1, UINT32_MAX, &options_of(context)->removed);

	if (result < 0)
		snprintf(error, OPTIONS_ERROR_SIZE, "the number of a forward, as --list shows it");
	return result;
}

static const struct option_entry options_table[] = {
	{"network", 0, "NAME", "the VM's network; \"shared\" if not said", parse_network},
	{"udp", 0, NULL, "forward UDP instead of TCP", parse_udp},
	{"pin", 0, NULL, "keep it, over restarts too, until --remove", parse_pin},
	{"list", 0, NULL, "list your forwards; as root, all", parse_list},
	{"remove", 0, "NUMBER", "remove a pinned forward", parse_remove},
};

static const struct column columns[] = {
	{"NUMBER", "id", .kind = CELL_NUMBER},
	{"NETWORK", "network"},
	{"PROTOCOL", "protocol"},
	{"LISTEN", "listen"},
	{"TARGET", "target", .can_cut = true},
	{"ADDRESS", "address", .rank = 1},
	{"ORIGIN", "origin", .rank = 2},
	{"USER", "uid", .kind = CELL_NUMBER, .rank = 3},
};

static int list_forwards(const struct ctl *ctl, vmnet_broker_t *broker)
{
	cleanup_ctl_json json_t *result = ctl_call_pages(broker, &ctl_forwards);

	if (!result)
		return 1;
	if (ctl->json)
		return ctl_print_json(result);
	return table_print(json_object_get(result, "forwards"), columns, array_length(columns));
}

static int remove_forward(const struct ctl *ctl, vmnet_broker_t *broker, uint32_t id)
{
	cleanup_ctl_json json_t *answer =
		ctl_call(broker, "RemoveForward", json_pack("{s:I}", "id", (json_int_t)id));

	if (!answer)
		return 1;
	return ctl->json ? ctl_print_json(answer) : 0;
}

/* TARGET without a port has that of LISTEN; an IPv6 address without brackets has no port. */
static int complete_target(const char *listen, const char *target, char text[TARGET_SIZE])
{
	const char *first = strchr(target, ':');
	bool is_bare_ipv6 = first && *target != '[' && strchr(first + 1, ':');
	bool has_port = *target == '[' ? strstr(target, "]:") != NULL : first && !is_bare_ipv6;
	const char *colon = strrchr(listen, ':');
	const char *port = colon ? colon + 1 : listen;
	int length;

	if (has_port)
		length = snprintf(text, TARGET_SIZE, "%s", target);
	else
		length = snprintf(
			text, TARGET_SIZE, is_bare_ipv6 ? "[%s]:%s" : "%s:%s", target, port);
	return length < TARGET_SIZE ? 0 : -1;
}

static vmnet_broker_status_t request_forward(vmnet_broker_t *broker,
	const struct forward_options *options, const char *listen, const char *target,
	json_t **ret_answer)
{
	json_t *parameters = json_pack("{s:s, s:s, s:s, s:s, s:b}", "network",
		options->network ? options->network : "shared", "protocol",
		options->udp ? "udp" : "tcp", "listen", listen, "target", target, "pin",
		options->pin);

	/* An argument that is no UTF-8. */
	if (!parameters)
		return VMNET_BROKER_INVALID_REQUEST;
	return ctl_try_call(broker, "Forward", parameters, ret_answer);
}

static const char *text_of(const json_t *forward, const char *member)
{
	const char *text = json_string_value(json_object_get(forward, member));

	return text ? text : "no VM yet";
}

static int print_forward(const struct ctl *ctl, const json_t *answer)
{
	const json_t *forward = json_object_get(answer, "forward");

	if (ctl->json)
		return ctl_print_json(answer);
	printf("forward %lld: %s %s leads to %s (%s)\n",
		(long long)json_integer_value(json_object_get(forward, "id")),
		text_of(forward, "protocol"), text_of(forward, "listen"),
		text_of(forward, "target"), text_of(forward, "address"));
	return fflush(stdout) == 0 ? 0 : 1;
}

/*
 * Until we are ended. A broker that was restarted keeps the forward for some seconds, in which it
 * has to be asked for again; asking for one that is there changes nothing.
 */
static int hold_forward(vmnet_broker_t *broker, const struct forward_options *options,
	const char *listen, const char *target)
{
	struct pollfd waiter = {.fd = vmnet_broker_get_fd(broker), .events = POLLIN};

	for (;;) {
		cleanup_ctl_json json_t *answer = NULL;
		vmnet_broker_status_t status;

		if (poll(&waiter, 1, -1) < 0 ||
			vmnet_broker_dispatch(broker) != VMNET_BROKER_SUCCESS)
			continue;
		status = request_forward(broker, options, listen, target, &answer);
		if (status != VMNET_BROKER_SUCCESS && status != VMNET_BROKER_CONNECTION_FAILURE) {
			ctl_report_failure(broker, status);
			return 1;
		}
	}
}

static int make_forward(const struct ctl *ctl, vmnet_broker_t *broker, char **arguments)
{
	const struct forward_options *options = ctl->options;
	cleanup_ctl_json json_t *answer = NULL;
	vmnet_broker_status_t status;
	char target[TARGET_SIZE];

	if (complete_target(arguments[0], arguments[1], target) < 0) {
		log_error(CTL_TAG, "forward: no VM has a name or address as long as \"%.40s...\"",
			arguments[1]);
		return 1;
	}
	status = request_forward(broker, options, arguments[0], target, &answer);
	if (status != VMNET_BROKER_SUCCESS) {
		ctl_report_failure(broker, status);
		return 1;
	}
	if (print_forward(ctl, answer) != 0)
		return 1;
	return options->pin ? 0 : hold_forward(broker, options, arguments[0], target);
}

static bool is_usage_right(const struct forward_options *options, size_t arguments_count)
{
	bool makes = !options->list && !options->removed;

	if (options->list && options->removed)
		return false;
	if (!makes && (options->network || options->udp || options->pin))
		return false;
	return arguments_count == (makes ? 2 : 0);
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	const struct forward_options *options = ctl->options;
	cleanup_broker vmnet_broker_t *broker = NULL;

	if (!is_usage_right(options, arguments_count)) {
		log_error(CTL_TAG,
			"forward: give a port and a VM (forward 8080 web:80), or --list, or "
			"--remove NUMBER, and nothing beside");
		return 1;
	}
	broker = ctl_connect(ctl);
	if (!broker)
		return 1;
	if (options->list)
		return list_forwards(ctl, broker);
	if (options->removed)
		return remove_forward(ctl, broker, options->removed);
	return make_forward(ctl, broker, arguments);
}

const struct command forward_command = {
	.name = "forward",
	.help = "lead a port of the host to a VM until this ends, or --pin",
	.usage = "[options] [ADDRESS:]PORT VM[:PORT] | --list | --remove NUMBER",
	.options = options_table,
	.options_count = array_length(options_table),
	.options_size = sizeof(struct forward_options),
	.arguments_max = 2,
	.run = run,
};
