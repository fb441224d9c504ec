#include "broker/vm-names.h"

#include "base/log.h"
#include "broker/configured-reservations.h"
#include "broker/forward.h"

#include <string.h>

const char *vm_names_get(const struct interface *interface)
{
	const struct interface_record *record = &interface->record;

	return *record->hostname ? record->hostname : record->told_name;
}

static struct interface *find_holder(const struct network *network, const char *name)
{
	for (struct interface *found = network->interfaces; found; found = found->next)
		if (strcasecmp(vm_names_get(found), name) == 0)
			return found;
	return NULL;
}

int vm_names_check(const struct network *network, const char *hostname, struct failure *failure)
{
	const struct interface *holder;
	char name[IFNAMSIZ];

	if (!*hostname)
		return 0;
	if (hostname_is_reserved(hostname))
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
			"hostname \"%s\" can be no VM's: programs take it for the host's, or trust "
			"it; choose another",
			hostname);
	holder = find_holder(network, hostname);
	if (!holder)
		return 0;
	platform_interface_name(holder->number, name);
	return failure_set(failure, BROKER_ERROR_CONFLICT,
		"hostname \"%s\" is in use on network \"%s\" by interface %s of user %d; stop that "
		"VM, or choose another",
		hostname, network->name, name, (int)holder->record.uid);
}

/* As no other MAC makes it. */
static void make_own_name(struct mac mac, char name[HOSTNAME_SIZE])
{
	snprintf(name, HOSTNAME_SIZE, "vm-%02x%02x%02x%02x%02x%02x", mac.bytes[0], mac.bytes[1],
		mac.bytes[2], mac.bytes[3], mac.bytes[4], mac.bytes[5]);
}

static bool is_anothers(const struct network *network, const char *name)
{
	return find_holder(network, name) || configured_reservation_find_name(network, name) ||
	       hostname_is_reserved(name);
}

static void report_denial(const struct interface *interface, const char *name)
{
	char text[IFNAMSIZ];

	platform_interface_name(interface->number, text);
	log_info(interface->network->tag,
		"the VM of interface %s calls itself %s, which is another's name; it is %s", text,
		name, interface->record.told_name);
}

static void keep(struct interface *interface)
{
	struct network *network = interface->network;
	int error = records_save_interface(
		network->registry->records, interface->number, &interface->record);

	if (!error)
		error = network_write_hosts(network);
	if (error)
		log_warn(network->tag, "the name %s could not be kept: %s",
			interface->record.told_name, strerror(-error));
	forwards_update(network->registry->forwards, NULL);
}

void vm_names_take_told(struct network *network, struct mac mac, const char *name)
{
	struct interface *interface = interface_find_mac(network, mac);

	/* A VM that has a name is called so by dnsmasq whatever it tells. */
	if (!interface || *vm_names_get(interface) || configured_reservation_name(network, mac))
		return;
	if (is_anothers(network, name)) {
		make_own_name(mac, interface->record.told_name);
		report_denial(interface, name);
	} else {
		snprintf(interface->record.told_name, HOSTNAME_SIZE, "%s", name);
	}
	keep(interface);
}
