#include "ctl/stats-prometheus.h"

#include "base/cleanup.h"

static const struct metric {
	const char *name;
	const char *help;
	const char *source, *counter;
} metrics[] = {
	{"vmnet_interface_packets_total", "Frames at the VM's TAP; a large one counts once.",
		"kernel", "packets"},
	{"vmnet_interface_bytes_total", "Bytes of frames at the VM's TAP.", "kernel", "bytes"},
	{"vmnet_interface_drops_total", "Frames that were dropped at the VM's TAP.", "kernel",
		"drops"},
	{"vmnet_helper_packets_total", "Frames that the helper carried, as the VM sees them.",
		"helper", "packets"},
	{"vmnet_helper_bytes_total", "Bytes of frames that the helper carried.", "helper", "bytes"},
	{"vmnet_helper_drops_total", "Frames that the helper dropped.", "helper", "drops"},
};

static const struct direction {
	const char *member, *label;
} directions[] = {
	{"hostToVm", "host->vm"},
	{"vmToHost", "vm->host"},
};

static void write_label(FILE *stream, const char *separator, const char *name, const char *value)
{
	fprintf(stream, "%s%s=\"", separator, name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fputc('\\', stream);
		if (*value == '\n')
			fputs("\\n", stream);
		else
			fputc(*value, stream);
	}
	fputc('"', stream);
}

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "";
}

static void write_sample(FILE *stream, const struct metric *metric,
	const struct direction *direction, const json_t *entry)
{
	const json_t *counted =
		json_object_get(json_object_get(entry, metric->source), direction->member);
	const json_t *value = json_object_get(counted, metric->counter);

	if (!value)
		return;
	fputs(metric->name, stream);
	write_label(stream, "{", "network", text_of(entry, "network"));
	write_label(stream, ",", "interface", text_of(entry, "interfaceName"));
	write_label(stream, ",", "hostname", text_of(entry, "hostname"));
	write_label(stream, ",", "direction", direction->label);
	fprintf(stream, "} %lld\n", (long long)json_integer_value(value));
}

void stats_write_prometheus(FILE *stream, const json_t *answer)
{
	const json_t *list = json_object_get(answer, "statistics");

	for (size_t i = 0; i < array_length(metrics); i++) {
		fprintf(stream, "# HELP %s %s\n# TYPE %s counter\n", metrics[i].name,
			metrics[i].help, metrics[i].name);
		for (size_t row = 0; row < json_array_size(list); row++)
			for (size_t side = 0; side < array_length(directions); side++)
				write_sample(stream, &metrics[i], &directions[side],
					json_array_get(list, row));
	}
}
