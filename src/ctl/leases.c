#include "base/cleanup.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

static const struct column columns[] = {
	{"NETWORK", "network"},
	{"ADDRESS", "address"},
	{"MAC", "mac", .rank = 2},
	{"HOSTNAME", "hostname", .can_cut = true},
	{"INTERFACE", "interfaceName", .rank = 1},
	{"USER", "uid", .kind = CELL_NUMBER, .rank = 3},
	{"EXPIRES", "expiresIn", .kind = CELL_DURATION},
};

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = ctl_connect(ctl);
	cleanup_ctl_json json_t *result = broker ? ctl_call_pages(broker, &ctl_leases) : NULL;

	if (!result)
		return 1;
	if (ctl->json)
		return ctl_print_json(result);
	return table_print(json_object_get(result, "leases"), columns, array_length(columns));
}

const struct command leases_command = {
	.name = "leases",
	.help = "list the DHCP leases of your VMs; as root, all",
	.usage = "",
	.run = run,
};
