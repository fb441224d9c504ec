#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/doctor-alone.h"
#include "ctl/terminal.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "";
}

/* A firewall's or a program's name is not ours to trust. */
static void print_clean(const char *text)
{
	cleanup_free char *clean = terminal_clean(text);

	fputs(clean ? clean : "", stdout);
}

static void print_finding(const json_t *finding)
{
	static const char named[] = "network \"";
	const char *network = text_of(finding, "network");

	printf("%s: ", text_of(finding, "problem"));
	/* Some texts name it themselves. */
	if (*network && strncmp(text_of(finding, "text"), named, strlen(named)) != 0)
		printf("network \"%s\": ", network);
	print_clean(text_of(finding, "text"));
	printf("\n    mend: ");
	print_clean(text_of(finding, "mend"));
	putchar('\n');
}

static void print_accepts(const json_t *accepts)
{
	size_t i;
	json_t *rule;

	if (json_array_size(accepts) > 0)
		printf("rules of ours in other firewalls, for as long as their networks run:\n");
	json_array_foreach(accepts, i, rule)
	{
		printf("    ");
		print_clean(json_string_value(rule));
		putchar('\n');
	}
}

static void print_findings(const json_t *findings)
{
	size_t i;
	json_t *finding;

	if (json_array_size(findings) == 0)
		printf("nothing found: what VMs need of this host is as it should be\n");
	json_array_foreach(findings, i, finding) print_finding(finding);
}

static void print_notes(const json_t *notes)
{
	size_t i;
	json_t *note;

	json_array_foreach(notes, i, note)
	{
		printf("note: %s: ", text_of(note, "problem"));
		print_clean(text_of(note, "text"));
		printf("\n    to change it: ");
		print_clean(text_of(note, "mend"));
		putchar('\n');
	}
}

static json_t *ask(const struct ctl *ctl)
{
	char tried[CTL_REASON_SIZE];
	vmnet_broker_status_t status;
	cleanup_broker vmnet_broker_t *broker =
		vmnet_broker_connect(ctl->socket, &status, tried, sizeof(tried));
	json_t *answer;

	if (broker)
		return ctl_call(broker, "Diagnose", NULL);
	if (ctl_names_broker(ctl)) {
		ctl_report_absence(ctl, status, tried);
		return NULL;
	}
	answer = doctor_look_alone(status);
	if (!answer)
		log_error(CTL_TAG, "out of memory");
	return answer;
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_ctl_json json_t *answer = ask(ctl);
	const json_t *findings = json_object_get(answer, "findings");
	int status = json_array_size(findings) > 0 ? 1 : 0;

	if (!answer)
		return 1;
	if (ctl->json)
		return ctl_print_json(answer) ? 1 : status;
	print_findings(findings);
	print_accepts(json_object_get(answer, "accepts"));
	print_notes(json_object_get(answer, "notes"));
	return fflush(stdout) == 0 ? status : 1;
}

const struct command doctor_command = {
	.name = "doctor",
	.help = "find what keeps VMs from the network, and what mends it (1: something was found)",
	.usage = "",
	.run = run,
};
