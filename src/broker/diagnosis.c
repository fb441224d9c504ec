#include "broker/diagnosis.h"

#include "broker/network-obstacles.h"

#include <string.h>

/* An answer has 64 KiB, and nobody reads more. */
#define FINDINGS_MAX 64
#define ACCEPTS_MAX  256
#define NOTES_MAX    16

struct diagnosis {
	json_t *findings;
	json_t *accepts;
	json_t *notes;
};

/* network may be NULL: the host's. */
static void add_finding(struct diagnosis *diagnosis, const char *problem,
	const struct network *network, const char *text, const char *mend)
{
	json_t *finding;

	if (json_array_size(diagnosis->findings) >= FINDINGS_MAX)
		return;
	finding = json_pack("{s:s, s:s, s:s}", "problem", problem, "text", text, "mend", mend);
	if (finding && network)
		json_object_set_new(finding, "network", json_string(network->name));
	json_array_append_new(diagnosis->findings, finding);
}

static void take_problem(void *context, const struct platform_problem *problem)
{
	struct diagnosis *diagnosis = context;

	if (!problem->is_note)
		add_finding(diagnosis, problem->problem, NULL, problem->text, problem->mend);
	else if (json_array_size(diagnosis->notes) < NOTES_MAX)
		json_array_append_new(
			diagnosis->notes, json_pack("{s:s, s:s, s:s}", "problem", problem->problem,
						  "text", problem->text, "mend", problem->mend));
}

static void take_accept(void *context, const char *rule)
{
	struct diagnosis *diagnosis = context;

	if (json_array_size(diagnosis->accepts) < ACCEPTS_MAX)
		json_array_append_new(diagnosis->accepts, json_string(rule));
}

static void look_at_overlap(struct diagnosis *diagnosis, const struct network *network)
{
	char use[SUBNET_OWNER_SIZE], subnet[SUBNET_TEXT_SIZE];
	char text[2 * SUBNET_OWNER_SIZE];

	if (network_find_overlap(network, use, sizeof(use)) <= 0)
		return;
	ipv4_subnet_to_text(network->link.subnet, subnet);
	snprintf(text, sizeof(text),
		"its subnet %s overlaps the host's %s, whose addresses are out of reach", subnet,
		use);
	add_finding(diagnosis, "subnet-taken", network, text,
		network->settings.has_subnet
			? "give it another \"subnet\" in networks.json, then end its VMs"
			: "end its VMs: it starts on a free one again");
}

static void look_at_network(struct diagnosis *diagnosis, const struct network *network)
{
	if (network->config && *network->config->error)
		add_finding(diagnosis, "out-of-service", network, network->config->error,
			"vmnet-broker --check-config");
	else if (network->state != NETWORK_ABSENT)
		look_at_overlap(diagnosis, network);
	else if (*network->last_failure.reason)
		add_finding(diagnosis, "start-failed", network, network->last_failure.reason,
			"start a VM on it again when its reason is mended");
}

static void fill(struct diagnosis *diagnosis, const struct registry *registry,
	const struct credentials *credentials)
{
	const struct config *config = registry->config;

	for (size_t i = 0; i < config->broken_count; i++)
		add_finding(diagnosis, "out-of-service", NULL, config->broken[i],
			"vmnet-broker --check-config");
	for (const struct network *network = registry->networks; network; network = network->next)
		if (access_is_granted(network, credentials))
			look_at_network(diagnosis, network);
	if (platform_find_problems(registry->platform, !registry_is_empty(registry), take_problem,
		    take_accept, diagnosis) < 0)
		add_finding(diagnosis, "not-seen", NULL,
			"the host's firewalls and routes could not all be looked at",
			"vmnetctl doctor");
}

json_t *diagnosis_make(const struct registry *registry, const struct credentials *credentials)
{
	struct diagnosis diagnosis = {
		.findings = json_array(), .accepts = json_array(), .notes = json_array()};

	if (diagnosis.findings && diagnosis.accepts && diagnosis.notes)
		fill(&diagnosis, registry, credentials);
	return json_pack("{s:o, s:o, s:o}", "findings", diagnosis.findings, "accepts",
		diagnosis.accepts, "notes", diagnosis.notes);
}
