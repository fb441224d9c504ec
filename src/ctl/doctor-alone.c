#include "ctl/doctor-alone.h"

#include "client/start-broker.h"
#include "rootless/obstacles.h"

#include <limits.h>
#include <unistd.h>

struct look {
	json_t *findings;
	json_t *notes;
};

static void add(json_t *list, const char *problem, const char *text, const char *mend)
{
	json_array_append_new(
		list, json_pack("{s:s, s:s, s:s}", "problem", problem, "text", text, "mend", mend));
}

static void take_obstacle(void *context, const struct obstacle *obstacle)
{
	const struct look *look = context;

	add(obstacle->grade == OBSTACLE_NOTE ? look->notes : look->findings, obstacle->problem,
		obstacle->text, obstacle->mend);
}

static void look_at_program(const struct look *look)
{
	char program[PATH_MAX];

	if (start_broker_find_program(program) == 0)
		obstacles_list(program, take_obstacle, (void *)(uintptr_t)look);
	else
		add(look->findings, "no-program",
			"vmnet-broker is neither beside this program nor where it is installed",
			"apt install vmnet-broker");
}

static void note_absence(const struct look *look, vmnet_broker_status_t status)
{
	char text[START_BROKER_NOTE_SIZE], mend[START_BROKER_NOTE_SIZE];

	if (geteuid() == 0) {
		add(look->notes, "no-broker",
			"no broker runs now: vmnet-client and vmnet-helper start one",
			"systemctl enable --now vmnet-broker.socket");
		return;
	}
	add(look->notes, "no-broker",
		"no broker of this user's own runs now: vmnet-client and vmnet-helper start one",
		"vmnet-broker --rootless");
	if (status == VMNET_BROKER_NOT_ALLOWED && start_broker_explain_refusal(text, mend))
		add(look->notes, "not-in-group", text, mend);
}

json_t *doctor_look_alone(vmnet_broker_status_t status)
{
	struct look look = {.findings = json_array(), .notes = json_array()};

	if (look.findings && look.notes) {
		look_at_program(&look);
		note_absence(&look, status);
	}
	return json_pack(
		"{s:o, s:[], s:o}", "findings", look.findings, "accepts", "notes", look.notes);
}
