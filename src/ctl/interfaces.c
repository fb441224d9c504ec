#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/broker-call.h"
#include "ctl/command.h"
#include "ctl/table.h"

static const struct column columns[] = {
	{"NETWORK", "network"},
	{"INTERFACE", "interfaceName"},
	{"MAC", "mac"},
	{"ADDRESS", "address"},
	{"HOSTNAME", "hostname"},
	{"USER", "uid"},
	{"QUEUES", "queues"},
};

/* Adds the page behind *last to list. Returns 1 when there are more, 0 when that was the last one,
 * or -1 when it could not be had. */
static int add_page(vmnet_broker_t *broker, json_t *list, const char **last)
{
	json_t *parameters = *last ? json_pack("{s:s}", "after", *last) : NULL;
	cleanup_ctl_json json_t *answer = ctl_call(broker, "ListInterfaces", parameters);
	json_t *page = json_object_get(answer, "interfaces");
	json_t *end = json_array_get(page, json_array_size(page) - 1);

	if (!answer)
		return -1;
	if (json_array_extend(list, page) < 0) {
		log_error(CTL_TAG, "out of memory");
		return -1;
	}
	if (!json_is_true(json_object_get(answer, "more")) || !end)
		return 0;
	/* Lives on in list. */
	*last = json_string_value(json_object_get(end, "interfaceName"));
	return *last ? 1 : 0;
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_broker vmnet_broker_t *broker = ctl_connect(ctl);
	cleanup_ctl_json json_t *result = json_pack("{s:[]}", "interfaces");
	json_t *list = json_object_get(result, "interfaces");
	const char *last = NULL;
	int more = broker ? 1 : -1;

	while (more > 0)
		more = add_page(broker, list, &last);
	if (more < 0)
		return 1;
	return ctl->json ? ctl_print_json(result)
			 : table_print(list, columns, array_length(columns));
}

const struct command interfaces_command = {
	.name = "interfaces",
	.help = "list the interfaces of your VMs; as root, of everybody's",
	.usage = "",
	.run = run,
};
