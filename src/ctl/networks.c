#include "base/cleanup.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

static const struct column columns[] = {
	{"NETWORK", "name"},
	{"MODE", "mode"},
	{"RUNNING", "running", .kind = CELL_RUNNING},
	{"SUBNET", "subnet"},
	{"GATEWAY", "gateway", .rank = 3},
	{"IPV6", "ipv6Prefix", .rank = 4},
	{"MTU", "mtu", .kind = CELL_NUMBER, .rank = 5},
	{"BRIDGE", "bridge", .rank = 2},
	{"DOMAIN", "domain", .can_cut = true, .rank = 1},
	{"DESCRIPTION", "description", .can_cut = true, .rank = 6},
};

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = ctl_connect(ctl);
	cleanup_ctl_json json_t *answer = broker ? ctl_call_pages(broker, &ctl_networks) : NULL;

	if (!answer)
		return 1;
	if (ctl->json)
		return ctl_print_json(answer);
	return table_print(json_object_get(answer, "networks"), columns, array_length(columns));
}

const struct command networks_command = {
	.name = "networks",
	.help = "list the networks, configured and running",
	.usage = "",
	.run = run,
};
