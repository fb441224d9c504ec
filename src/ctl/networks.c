#include "base/cleanup.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

static const struct column columns[] = {
	{"NETWORK", "name"},
	{"MODE", "mode"},
	{"RUNNING", "running"},
	{"SUBNET", "subnet"},
	{"GATEWAY", "gateway"},
	{"IPV6", "ipv6Prefix"},
	{"MTU", "mtu"},
	{"BRIDGE", "bridge"},
	{"DOMAIN", "domain"},
	{"DESCRIPTION", "description"},
};

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = ctl_connect(ctl);
	cleanup_ctl_json json_t *answer =
		broker ? ctl_call_pages(broker, "ListNetworks", "networks", "name") : NULL;

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
