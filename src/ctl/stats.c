/* vmnetctl stats: what was counted of each interface, once or again and again. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/stats-prometheus.h"
#include "ctl/stats-rates.h"
#include "ctl/table.h"
#include "ctl/watch.h"

#include <errno.h>
#include <string.h>

#define WATCH_DEFAULT_S 2
#define WATCH_MAX_S     86400

struct stats_options {
	uint32_t watch_s; /* 0: once */
	bool is_prometheus;
};

static struct stats_options *options_of(void *context)
{
	return ((struct ctl *)context)->options;
}

static int parse_watch(void *context, const char *argument, char *error)
{
	struct stats_options *options = options_of(context);
	int result;

	options->watch_s = WATCH_DEFAULT_S;
	if (!argument)
		return 0;
	result = text_to_uint32(argument, 1, WATCH_MAX_S, &options->watch_s);
	if (result < 0)
		snprintf(error, OPTIONS_ERROR_SIZE, "a number of seconds, 1 to %d", WATCH_MAX_S);
	return result;
}

static int parse_format(void *context, const char *argument, char *error)
{
	options_of(context)->is_prometheus = strcmp(argument, "prometheus") == 0;
	if (options_of(context)->is_prometheus || strcmp(argument, "table") == 0)
		return 0;
	snprintf(error, OPTIONS_ERROR_SIZE, "one of table, prometheus");
	return -EINVAL;
}

static const struct option_entry options_table[] = {
	{"watch", 0, "SECONDS", "again every 2 seconds, or so many, with rates, until ^C",
		parse_watch, .argument_is_optional = true},
	{"format", 0, "FORMAT", "table or prometheus; \"table\" if not said", parse_format},
};

static const struct column total_columns[] = {
	{"NETWORK", "network", .rank = 2},
	{"INTERFACE", "interfaceName"},
	{"HOSTNAME", "hostname", .can_cut = true, .rank = 1},
	{"BY", "source"},
	{"HOST->VM", "counted.hostToVm.bytes", .kind = CELL_BYTES},
	{"PACKETS", "counted.hostToVm.packets", .kind = CELL_NUMBER, .rank = 3},
	{"DROPS", "counted.hostToVm.drops", .kind = CELL_TROUBLE},
	{"VM->HOST", "counted.vmToHost.bytes", .kind = CELL_BYTES},
	{"PACKETS", "counted.vmToHost.packets", .kind = CELL_NUMBER, .rank = 3},
	{"DROPS", "counted.vmToHost.drops", .kind = CELL_TROUBLE},
};

static const struct column rate_columns[] = {
	{"NETWORK", "network", .rank = 2},
	{"INTERFACE", "interfaceName"},
	{"HOSTNAME", "hostname", .can_cut = true, .rank = 1},
	{"BY", "source"},
	{"HOST->VM", "rated.hostToVm.bytes", .kind = CELL_BIT_RATE},
	{"PACKETS/S", "rated.hostToVm.packets", .kind = CELL_WHOLE, .rank = 4},
	{"TOTAL", "counted.hostToVm.bytes", .kind = CELL_BYTES, .rank = 3},
	{"DROPS", "counted.hostToVm.drops", .kind = CELL_TROUBLE},
	{"VM->HOST", "rated.vmToHost.bytes", .kind = CELL_BIT_RATE},
	{"PACKETS/S", "rated.vmToHost.packets", .kind = CELL_WHOLE, .rank = 4},
	{"TOTAL", "counted.vmToHost.bytes", .kind = CELL_BYTES, .rank = 3},
	{"DROPS", "counted.vmToHost.drops", .kind = CELL_TROUBLE},
};

/* A line for what the kernel counted of an interface, and one for what its helper did. */
static void add_lines(json_t *lines, const json_t *entry)
{
	static const char *const sources[] = {"kernel", "helper"};
	const json_t *rates = json_object_get(entry, "rates");

	for (size_t i = 0; i < array_length(sources); i++) {
		json_t *counted = json_object_get(entry, sources[i]);
		json_t *line;

		if (!counted)
			continue;
		line = json_pack("{s:O?, s:O?, s:O?, s:s, s:O, s:O?}", "network",
			json_object_get(entry, "network"), "interfaceName",
			json_object_get(entry, "interfaceName"), "hostname",
			json_object_get(entry, "hostname"), "source", sources[i], "counted",
			counted, "rated", json_object_get(rates, sources[i]));
		json_array_append_new(lines, line);
	}
}

static void write_table(const struct terminal *terminal, const json_t *answer, bool has_rates)
{
	cleanup_ctl_json json_t *lines = json_array();
	/* The titles and two lines below: what is cut short is known as such. */
	size_t rows_max = has_rates && terminal->rows > 4 ? (size_t)terminal->rows - 3 : 0;
	json_t *entry;
	size_t i;

	json_array_foreach(json_object_get(answer, "statistics"), i, entry) add_lines(lines, entry);
	if (has_rates)
		table_write(stdout, terminal, lines, rate_columns, array_length(rate_columns),
			rows_max);
	else
		table_write(stdout, terminal, lines, total_columns, array_length(total_columns), 0);
}

static int show_once(const struct ctl *ctl, vmnet_broker_t *broker)
{
	const struct stats_options *options = ctl->options;
	cleanup_ctl_json json_t *answer = ctl_call_pages(broker, &ctl_statistics);
	struct terminal terminal;

	if (!answer)
		return 1;
	if (ctl->json)
		return ctl_print_json(answer);
	terminal_look(&terminal);
	if (options->is_prometheus)
		stats_write_prometheus(stdout, answer);
	else
		write_table(&terminal, answer, false);
	return table_finish();
}

static int draw(const struct ctl *ctl, const json_t *answer, bool is_first)
{
	struct terminal terminal;

	if (ctl->json)
		return ctl_print_json_line(answer);
	terminal_look(&terminal);
	watch_clear(terminal.is_one, is_first);
	write_table(&terminal, answer, true);
	return table_finish();
}

/* Looks again. *answer is replaced on success; a broker that is away is said once, and waited for.
 */
static vmnet_broker_status_t look(vmnet_broker_t *broker, json_t **answer, bool *is_away)
{
	json_t *now = NULL;
	vmnet_broker_status_t status = ctl_try_pages(broker, &ctl_statistics, &now);

	if (status == VMNET_BROKER_CONNECTION_FAILURE && *answer) {
		if (!*is_away)
			log_warn(CTL_TAG, "the broker has gone; VMs go on, and what they do is "
					  "shown again when it is back");
		*is_away = true;
		return status;
	}
	if (status != VMNET_BROKER_SUCCESS) {
		ctl_report_failure(broker, status);
		return status;
	}
	if (*is_away)
		log_info(CTL_TAG, "the broker is back");
	*is_away = false;
	(void)stats_add_rates(now, *answer);
	json_decref(*answer);
	*answer = now;
	return status;
}

static int watch(const struct ctl *ctl, vmnet_broker_t *broker)
{
	const struct stats_options *options = ctl->options;
	cleanup_ctl_json json_t *answer = NULL;
	int64_t next_ms = watch_now_ms();
	bool is_away = false, is_first = true;
	int error = 0;

	watch_begin();
	while (!error) {
		vmnet_broker_status_t status = look(broker, &answer, &is_away);

		if (status != VMNET_BROKER_SUCCESS && !is_away)
			return 1;
		if (!is_away)
			error = draw(ctl, answer, is_first);
		is_first = false;
		next_ms += (int64_t)options->watch_s * 1000;
		while (!error && watch_wait(next_ms) == WATCH_RESIZED && !ctl->json)
			error = draw(ctl, answer, is_first);
	}
	return error;
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	const struct stats_options *options = ctl->options;
	cleanup_broker vmnet_broker_t *broker = NULL;

	if (options->is_prometheus && (options->watch_s > 0 || ctl->json)) {
		log_error(CTL_TAG, "stats: Prometheus looks by itself again and again; leave out "
				   "--watch and --json with --format prometheus");
		return 1;
	}
	broker = ctl_connect(ctl);
	if (!broker)
		return 1;
	return options->watch_s > 0 ? watch(ctl, broker) : show_once(ctl, broker);
}

const struct command stats_command = {
	.name = "stats",
	.help = "tell what kernel and helpers counted of your VMs' interfaces; as root, of all",
	.usage = "[options]",
	.options = options_table,
	.options_count = array_length(options_table),
	.options_size = sizeof(struct stats_options),
	.run = run,
};
