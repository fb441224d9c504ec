#include "base/cleanup.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

static const struct column columns[] = {
	{"NETWORK", "network"},
	{"INTERFACE", "interfaceName"},
	{"MAC", "mac", .rank = 1},
	{"ADDRESS", "address"},
	{"HOSTNAME", "hostname", .can_cut = true},
	{"USER", "uid", .kind = CELL_NUMBER, .rank = 2},
	{"QUEUES", "queues", .kind = CELL_NUMBER, .rank = 3},
};

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = ctl_connect(ctl);
	cleanup_ctl_json json_t *result = broker ? ctl_call_pages(broker, &ctl_interfaces) : NULL;

	if (!result)
		return 1;
	if (ctl->json)
		return ctl_print_json(result);
	return table_print(json_object_get(result, "interfaces"), columns, array_length(columns));
}

const struct command interfaces_command = {
	.name = "interfaces",
	.help = "list the interfaces of your VMs; as root, of everybody's",
	.usage = "",
	.run = run,
};
