/* The names of users and groups that wait for their numbers. */
#include "broker/config.h"

static struct config_principals *list_of(struct config_network *network, size_t kind)
{
	return kind == CONFIG_NAME_USER ? &network->access.users : &network->access.groups;
}

static void step(struct config_names *names, const struct config_principals *list)
{
	if (++names->entry < list->count)
		return;
	names->entry = 0;
	if (++names->kind < CONFIG_NAME_KIND_COUNT)
		return;
	names->kind = 0;
	names->network++;
}

struct config_principal *config_next_name(struct config *config, struct config_names *names,
	enum config_name_kind *ret_kind, const struct config_network **ret_network)
{
	while (names->network < config->networks_count) {
		struct config_network *network = &config->networks[names->network];
		struct config_principals *list = list_of(network, names->kind);
		struct config_principal *principal =
			names->entry < list->count ? &list->entries[names->entry] : NULL;
		size_t kind = names->kind;

		step(names, list);
		if (!principal || !*principal->name)
			continue;
		*ret_kind = (enum config_name_kind)kind;
		*ret_network = network;
		return principal;
	}
	return NULL;
}
