/* vmnetctl monitor: what there is, then what happens, a line an event, over restarts of the broker.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/terminal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#define DETAILS_SIZE 1024

struct monitor_options {
	bool no_state;
};

static int parse_no_state(void *context, const char *argument, char *error)
{
	((struct monitor_options *)((struct ctl *)context)->options)->no_state = true;
	return 0;
}

static const struct option_entry options_table[] = {
	{"no-state", 0, NULL, "only what happens from now on, not what there is", parse_no_state},
};

/* --- a line for people --- */

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "";
}

/* Adds a word and the blank before it; nothing when it is empty. */
static void add_word(char *details, const char *word)
{
	size_t used = strlen(details);

	if (*word)
		snprintf(details + used, DETAILS_SIZE - used, "%s%s", used ? " " : "", word);
}

static void add_uid(char *details, const json_t *event)
{
	const json_t *uid = json_object_get(event, "uid");
	char word[48];

	if (!uid)
		return;
	snprintf(word, sizeof(word), "user %lld", (long long)json_integer_value(uid));
	add_word(details, word);
}

static void describe_interface(char *details, const json_t *interface)
{
	add_word(details, text_of(interface, "interfaceName"));
	add_word(details, text_of(interface, "hostname"));
	add_word(details, text_of(interface, "address"));
	add_word(details, text_of(interface, "mac"));
}

static void describe_lease(char *details, const json_t *lease)
{
	add_word(details, text_of(lease, "address"));
	add_word(details, text_of(lease, "hostname"));
	add_word(details, text_of(lease, "mac"));
}

static void describe_forward(char *details, const json_t *forward)
{
	add_word(details, text_of(forward, "protocol"));
	add_word(details, text_of(forward, "listen"));
	add_word(details, "to");
	add_word(details, text_of(forward, "target"));
	add_word(details, text_of(forward, "address"));
}

static void describe(char *details, const json_t *event)
{
	static const struct {
		const char *member;
		void (*add)(char *details, const json_t *object);
	} parts[] = {
		{"interface", describe_interface},
		{"lease", describe_lease},
		{"forward", describe_forward},
	};

	for (size_t i = 0; i < array_length(parts); i++) {
		const json_t *object = json_object_get(event, parts[i].member);

		if (object)
			parts[i].add(details, object);
	}
	add_uid(details, event);
	if (*details && *text_of(event, "text"))
		snprintf(details + strlen(details), DETAILS_SIZE - strlen(details), ":");
	add_word(details, text_of(event, "text"));
	if (strcmp(text_of(event, "kind"), "missed") == 0)
		snprintf(details, DETAILS_SIZE,
			"%lld events were not told: this was read too slowly",
			(long long)json_integer_value(json_object_get(event, "count")));
}

static void print_line(const json_t *event)
{
	long long time_us = json_integer_value(json_object_get(event, "time"));
	time_t seconds = (time_t)(time_us / 1000000);
	const char *network = text_of(event, "network");
	char details[DETAILS_SIZE] = "";
	cleanup_free char *clean = NULL;
	char clock[16] = "";
	struct tm local;

	/* That nothing more of the state comes is for programs. */
	if (strcmp(text_of(event, "kind"), "ready") == 0)
		return;
	if (localtime_r(&seconds, &local))
		strftime(clock, sizeof(clock), "%H:%M:%S", &local);
	describe(details, event);
	/* What a user's call or a VM's name said may be shown to root. */
	clean = terminal_clean(details);
	printf("%s.%03lld  %-13s  %-9s  %-16s%s%s\n", clock, time_us / 1000 % 1000,
		text_of(event, "kind"), text_of(event, "what"), *network ? network : "-",
		clean && *clean ? "  " : "", clean ? clean : "");
}

/* 0, or 1 when stdout takes no more. */
static int print_event(const struct ctl *ctl, const json_t *event)
{
	int error = 0;

	if (ctl->json) {
		error = json_dumpf(
			event, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
		putchar('\n');
	} else {
		print_line(event);
	}
	if (!error && fflush(stdout) == 0)
		return 0;
	log_error(CTL_TAG, "the events could not be written: %s", strerror(errno));
	return 1;
}

/* --- the broker, and the next one --- */

/* Of the connection the broker can tell nothing, so this is said here in the same form. */
static int print_connection(const struct ctl *ctl, const char *what, const char *text)
{
	cleanup_ctl_json json_t *event = NULL;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	event = json_pack("{s:I, s:s, s:s, s:b, s:s}", "time",
		(json_int_t)now.tv_sec * 1000000 + now.tv_nsec / 1000, "kind", "connection", "what",
		what, "state", false, "text", text);
	return event ? print_event(ctl, event) : 0;
}

static vmnet_broker_status_t start(vmnet_broker_t *broker, const char *network, bool no_state)
{
	cleanup_ctl_json json_t *parameters =
		json_pack("{s:b, s:s*}", "state", !no_state, "network", network);
	cleanup_free char *text = parameters ? json_dumps(parameters, JSON_COMPACT) : NULL;

	/* An argument that is no UTF-8. */
	if (!text)
		return VMNET_BROKER_INVALID_REQUEST;
	return vmnet_broker_call_for_more(broker, "Monitor", text);
}

/* Until there is no more. *ret_status says why; 1 when stdout takes no more, else 0. */
static int print_events(
	const struct ctl *ctl, vmnet_broker_t *broker, vmnet_broker_status_t *ret_status)
{
	for (;;) {
		cleanup_free char *text = NULL;
		cleanup_ctl_json json_t *reply = NULL;

		*ret_status = vmnet_broker_next_reply(broker, &text, NULL);
		if (*ret_status != VMNET_BROKER_SUCCESS)
			return 0;
		reply = json_loads(text, 0, NULL);
		if (print_event(ctl, json_object_get(reply, "event")) != 0)
			return 1;
	}
}

/* Waits as long as it takes. */
static void reconnect(vmnet_broker_t *broker)
{
	struct pollfd waiter = {.fd = vmnet_broker_get_fd(broker), .events = POLLIN};

	do
		(void)poll(&waiter, 1, -1);
	while (vmnet_broker_dispatch(broker) != VMNET_BROKER_SUCCESS);
}

static int follow(const struct ctl *ctl, vmnet_broker_t *broker, const char *network)
{
	const struct monitor_options *options = ctl->options;
	bool no_state = options->no_state;

	for (;;) {
		vmnet_broker_status_t status = start(broker, network, no_state);

		if (status == VMNET_BROKER_SUCCESS && print_events(ctl, broker, &status) != 0)
			return 1;
		if (status != VMNET_BROKER_CONNECTION_FAILURE) {
			ctl_report_failure(broker, status);
			return 1;
		}
		if (print_connection(ctl, "lost",
			    "the broker has gone; what happens until it is back is not told") != 0)
			return 1;
		reconnect(broker);
		if (print_connection(ctl, "restored", "the broker is back") != 0)
			return 1;
	}
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = ctl_connect(ctl);

	return broker ? follow(ctl, broker, arguments[0]) : 1;
}

const struct command monitor_command = {
	.name = "monitor",
	.help = "tell what there is, then what happens, a line an event, until this ends",
	.usage = "[options] [NETWORK]",
	.options = options_table,
	.options_count = array_length(options_table),
	.options_size = sizeof(struct monitor_options),
	.arguments_max = 1,
	.run = run,
};
