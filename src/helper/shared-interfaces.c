#include "helper/shared-interfaces.h"

#include "base/cleanup.h"
#include "vmnet-broker.h"
#include "wire/messages.h"
#include "wire/varlink.h"

#include <string.h>

/* Two networks may share one. */
static bool was_before(json_t *networks, size_t index, const char *uplink)
{
	for (size_t i = 0; i < index; i++) {
		struct broker_network network;

		if (broker_network_decode(json_array_get(networks, i), &network) == 0 &&
			strcmp(network.uplink, uplink) == 0)
			return true;
	}
	return false;
}

static void print_uplinks(FILE *file, json_t *networks)
{
	for (size_t i = 0; i < json_array_size(networks); i++) {
		struct broker_network network;

		if (broker_network_decode(json_array_get(networks, i), &network) == 0 &&
			strcmp(network.mode, "bridged") == 0 &&
			!was_before(networks, i, network.uplink))
			fprintf(file, "%s\n", network.uplink);
	}
}

/* One page more into networks. Whether there are others behind it. */
static bool add_page(vmnet_broker_t *broker, json_t *networks)
{
	const json_t *last = json_array_get(networks, json_array_size(networks) - 1);
	const char *name = json_string_value(json_object_get(last, "name"));
	cleanup_json json_t *parameters = name ? json_pack("{s:s}", "after", name) : json_object();
	cleanup_json json_t *answer = NULL;
	cleanup_free char *question = json_dumps(parameters, JSON_COMPACT);
	cleanup_free char *text = NULL;

	if (!question ||
		vmnet_broker_call(broker, "ListNetworks", question, &text) != VMNET_BROKER_SUCCESS)
		return false;
	answer = json_loads(text, 0, NULL);
	return json_array_extend(networks, json_object_get(answer, "networks")) == 0 &&
	       json_is_true(json_object_get(answer, "more"));
}

void shared_interfaces_print(FILE *file)
{
	vmnet_broker_t *broker = vmnet_broker_connect(NULL, NULL, NULL, 0);
	cleanup_json json_t *networks = json_array();

	if (!broker)
		return;
	while (add_page(broker, networks))
		;
	print_uplinks(file, networks);
	vmnet_broker_close(broker);
}
