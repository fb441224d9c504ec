#include "broker/configured-reservations.h"

#include "broker/interface.h"
#include "broker/mac.h"

#include <arpa/inet.h>
#include <string.h>

static bool macs_are_equal(struct mac a, struct mac b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

void configured_reservations_init(struct config *config, uint32_t instance)
{
	for (size_t i = 0; i < config->networks_count; i++) {
		struct config_network *network = &config->networks[i];

		for (size_t j = 0; j < network->reservations_count; j++)
			if (network->reservations[j].by_interface_id)
				network->reservations[j].mac = mac_from_interface_id(
					&network->reservations[j].interface_id, instance);
	}
}

static const struct interface *find_live(const struct network *network, struct mac mac)
{
	for (const struct interface *found = network->interfaces; found; found = found->next)
		if (macs_are_equal(found->record.mac, mac))
			return found;
	return NULL;
}

/* Those of a network, none while it is not rightly configured. */
static size_t count_of(const struct network *network)
{
	return network->config && !*network->config->error ? network->config->reservations_count
							   : 0;
}

const struct config_reservation *configured_reservation_find(
	const struct network *network, struct mac mac, const struct uuid *interface_id)
{
	const struct config_reservation *by_mac = NULL;

	for (size_t i = 0; i < count_of(network); i++) {
		const struct config_reservation *found = &network->config->reservations[i];

		if (found->by_interface_id && interface_id &&
			memcmp(&found->interface_id, interface_id, UUID_SIZE) == 0)
			return found;
		if (macs_are_equal(found->mac, mac))
			by_mac = found;
	}
	return by_mac;
}

/* A live interface is known by its id too. */
static const struct config_reservation *find_for_mac(const struct network *network, struct mac mac)
{
	const struct interface *live = count_of(network) ? find_live(network, mac) : NULL;

	return configured_reservation_find(network, mac, live ? &live->record.interface_id : NULL);
}

const struct config_reservation *configured_reservation_find_name(
	const struct network *network, const char *name)
{
	for (size_t i = 0; i < count_of(network); i++)
		if (*network->config->reservations[i].name &&
			strcasecmp(network->config->reservations[i].name, name) == 0)
			return &network->config->reservations[i];
	return NULL;
}

const char *configured_reservation_name(const struct network *network, struct mac mac)
{
	const struct config_reservation *reservation = find_for_mac(network, mac);

	return reservation && *reservation->name ? reservation->name : NULL;
}

/* The offset of its address in the subnet the network runs with; 0: it has none there. */
static uint32_t offset_of(
	const struct network *network, const struct config_reservation *reservation)
{
	struct ipv4_subnet subnet = network->link.subnet;
	uint32_t gateway = network->link.gateway_offset ? network->link.gateway_offset : 1;
	uint32_t offset = ntohl(reservation->address.s_addr) - ntohl(subnet.address.s_addr);

	if (!reservation->has_address || !ipv4_subnet_contains(subnet, reservation->address) ||
		offset == gateway || offset == ipv4_subnet_size(subnet) - 1)
		return 0;
	return offset;
}

bool configured_reservation_has_address(const struct network *network, struct mac mac)
{
	const struct config_reservation *reservation = find_for_mac(network, mac);

	return reservation && offset_of(network, reservation) != 0;
}

/* The live interface that has an address now, other than mac's. */
static const struct interface *find_occupant(
	const struct network *network, struct in_addr address, struct mac mac)
{
	for (const struct interface *found = network->interfaces; found; found = found->next)
		if (found->record.address.s_addr == address.s_addr &&
			!macs_are_equal(found->record.mac, mac))
			return found;
	return NULL;
}

/* The MAC a reservation is for: by interface id the live one's, which may have been declared. */
static struct mac mac_of(
	const struct network *network, const struct config_reservation *reservation)
{
	const struct interface *found = network->interfaces;

	if (reservation->by_interface_id)
		for (; found; found = found->next)
			if (memcmp(&found->record.interface_id, &reservation->interface_id,
				    UUID_SIZE) == 0)
				return found->record.mac;
	return reservation->mac;
}

static bool apply(struct network *network, const struct config_reservation *reservation)
{
	struct mac mac = mac_of(network, reservation);
	const struct interface *live = find_live(network, mac);
	uint32_t offset = offset_of(network, reservation);

	if (offset == 0 || find_occupant(network, reservation->address, mac) ||
		(live && live->record.address.s_addr != reservation->address.s_addr))
		return false;
	return reservations_set(&network->memory.reservations, mac, offset) > 0;
}

bool configured_reservations_apply(struct network *network)
{
	bool changed = false;

	for (size_t i = 0; i < count_of(network); i++)
		if (apply(network, &network->config->reservations[i]))
			changed = true;
	return changed;
}

bool configured_reservations_follow(struct network *network, const struct interface_record *gone)
{
	for (size_t i = 0; i < count_of(network); i++) {
		const struct config_reservation *reservation = &network->config->reservations[i];

		if (reservation->has_address &&
			(reservation->address.s_addr == gone->address.s_addr ||
				macs_are_equal(reservation->mac, gone->mac)))
			return configured_reservations_apply(network);
	}
	return false;
}

int configured_reservation_claim(
	struct network *network, const struct interface_record *record, struct failure *failure)
{
	const struct config_reservation *reservation =
		configured_reservation_find(network, record->mac, &record->interface_id);
	uint32_t offset = reservation ? offset_of(network, reservation) : 0;
	const struct interface *occupant;
	char address[INET_ADDRSTRLEN], name[IFNAMSIZ];
	int result;

	if (offset == 0)
		return 0;
	occupant = find_occupant(network, reservation->address, record->mac);
	if (occupant) {
		inet_ntop(AF_INET, &reservation->address, address, sizeof(address));
		platform_interface_name(occupant->number, name);
		return failure_set(failure, BROKER_ERROR_CONFLICT,
			"%s is reserved for this VM on network \"%s\", but interface %s of user %d "
			"has had it since before; stop that VM",
			address, network->name, name, (int)occupant->record.uid);
	}
	result = reservations_set(&network->memory.reservations, record->mac, offset);
	return result < 0 ? failure_set(failure, BROKER_ERROR_INTERNAL, "memory is out") : result;
}

int configured_reservation_check_name(const struct network *network,
	const struct interface_record *record, const char *name, struct failure *failure)
{
	const struct config_reservation *holder = configured_reservation_find_name(network, name);
	char id[UUID_TEXT_SIZE];

	if (!holder ||
		holder == configured_reservation_find(network, record->mac, &record->interface_id))
		return 0;
	if (holder->by_interface_id)
		uuid_to_text(holder->interface_id, id);
	else
		mac_to_text(holder->mac, id);
	return failure_set(failure, BROKER_ERROR_CONFLICT,
		"the name \"%s\" is reserved on network \"%s\" for the VM with %s %s (%s); choose "
		"another hostname, or start this VM with that %s",
		name, network->name, holder->by_interface_id ? "interface id" : "MAC", id,
		network->config->file, holder->by_interface_id ? "interface id" : "MAC");
}
