#include "broker/service.h"

#include "base/cleanup.h"
#include "broker/broker-idl.h"

/* The build's; "config.h" would be this folder's own. */
#include <config.h>
#include <string.h>

static const struct interface_text {
	const char *name;
	const char *description;
} interfaces[] = {
	{"org.varlink.service", org_varlink_service_text},
	{"org.vmnet.Broker", org_vmnet_broker_text},
};

static const struct interface_text *find_interface(const char *name, size_t length)
{
	for (size_t i = 0; i < array_length(interfaces); i++)
		if (strlen(interfaces[i].name) == length &&
			strncmp(interfaces[i].name, name, length) == 0)
			return &interfaces[i];
	return NULL;
}

bool service_has_interface(const char *name, size_t length)
{
	return find_interface(name, length) != NULL;
}

json_t *service_make_info(void)
{
	json_t *names = json_array();

	for (size_t i = 0; names && i < array_length(interfaces); i++)
		json_array_append_new(names, json_string(interfaces[i].name));
	return json_pack("{s:s, s:s, s:s, s:s, s:o}", "vendor", "vmnet", "product", "vmnet-broker",
		"version", VMNET_VERSION, "url", "", "interfaces", names);
}

json_t *service_make_description(const char *interface)
{
	const struct interface_text *found = find_interface(interface, strlen(interface));

	return found ? json_pack("{s:s}", "description", found->description) : NULL;
}

json_t *service_make_parameter_error(json_t *parameters, const char *wanted)
{
	const char *name;
	json_t *value;

	json_object_foreach(parameters, name, value)
	{
		if (!wanted || strcmp(name, wanted) != 0)
			return json_pack("{s:s}", "parameter", name);
	}
	return json_pack("{s:s}", "parameter", wanted ? wanted : "");
}
