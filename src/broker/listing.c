#include "broker/listing.h"

#include "base/cleanup.h"
#include "broker/access.h"
#include "broker/vm-names.h"
#include "wire/messages.h"
#include "wire/varlink.h"

#include <stdlib.h>
#include <string.h>

/* Of at most 400 bytes each, so that they fit into one message with room for members to come. */
#define PAGE_LENGTH 128

/* Of at most 900 bytes each, half of that a description full of quotes. */
#define NETWORKS_PAGE_LENGTH 64

void listing_describe_interface(
	const struct interface *interface, struct broker_interface *ret_described)
{
	const struct interface_record *record = &interface->record;
	struct broker_interface described = {
		.has_record = record->uid != RECORDS_OWNER_UNKNOWN,
		.mac = record->mac,
		.interface_id = record->interface_id,
		.address = record->address,
		.uid = record->uid,
		.queues = record->queues,
		.isolated = interface->isolated,
		.locked = interface->locked,
		.named = interface->named,
	};

	text_copy(described.network, sizeof(described.network), interface->network->name);
	text_copy(described.hostname, sizeof(described.hostname), vm_names_get(interface));
	platform_interface_name(interface->number, described.interface_name);
	*ret_described = described;
}

static bool is_listed(const struct interface *interface, uid_t uid, const char *after)
{
	char name[IFNAMSIZ];

	platform_interface_name(interface->number, name);
	return (uid == 0 || interface->record.uid == uid) && strcmp(name, after) > 0;
}

static int compare(const void *a, const void *b)
{
	const struct interface *const *left = a;
	const struct interface *const *right = b;
	char left_name[IFNAMSIZ], right_name[IFNAMSIZ];

	platform_interface_name((*left)->number, left_name);
	platform_interface_name((*right)->number, right_name);
	return strcmp(left_name, right_name);
}

/* Those that are listed, into interfaces (NULL: they are only counted). */
static size_t collect(const struct registry *registry, uid_t uid, const char *after,
	const struct interface **interfaces)
{
	size_t count = 0;

	for (const struct network *network = registry->networks; network; network = network->next)
		for (const struct interface *found = network->interfaces; found;
			found = found->next) {
			if (!is_listed(found, uid, after))
				continue;
			if (interfaces)
				interfaces[count] = found;
			count++;
		}
	return count;
}

static json_t *encode_page(const struct interface *const *interfaces, size_t count)
{
	cleanup_json json_t *list = json_array();

	for (size_t i = 0; i < count && i < PAGE_LENGTH; i++) {
		struct broker_interface described;

		listing_describe_interface(interfaces[i], &described);
		if (json_array_append_new(list, broker_interface_encode(&described)) < 0)
			return NULL;
	}
	return take_ptr(list);
}

json_t *listing_make_interfaces(const struct registry *registry, uid_t uid, const char *after)
{
	size_t count = collect(registry, uid, after, NULL);
	cleanup_free const struct interface **interfaces = calloc(count + 1, sizeof(*interfaces));

	if (!interfaces)
		return NULL;
	collect(registry, uid, after, interfaces);
	qsort(interfaces, count, sizeof(*interfaces), compare);
	return json_pack("{s:o, s:b}", "interfaces", encode_page(interfaces, count), "more",
		count > PAGE_LENGTH);
}

static bool network_is_listed(
	const struct network *network, const struct credentials *user, const char *after)
{
	return (network->config || network->state != NETWORK_ABSENT) &&
	       strcmp(network->name, after) > 0 && access_is_granted(network, user);
}

/* The registry has them sorted. */
json_t *listing_make_networks(
	const struct registry *registry, const struct credentials *user, const char *after)
{
	cleanup_json json_t *list = json_array();
	const struct network *network = registry->networks;

	for (; network && json_array_size(list) < NETWORKS_PAGE_LENGTH; network = network->next) {
		struct broker_network described;

		if (!network_is_listed(network, user, after))
			continue;
		network_describe(network, &described);
		if (json_array_append_new(list, broker_network_encode(&described)) < 0)
			return NULL;
	}
	while (network && !network_is_listed(network, user, after))
		network = network->next;
	return json_pack("{s:O, s:b}", "networks", list, "more", network != NULL);
}
