#include "broker/interface.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/bridged.h"
#include "broker/configured-reservations.h"
#include "broker/events.h"
#include "broker/forward.h"
#include "broker/interface-lease.h"
#include "broker/mac.h"
#include "broker/policy.h"
#include "broker/quotas.h"
#include "broker/vm-names.h"
#include "priv/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* How often a random number may be in use already. */
#define NUMBER_TRIES 8

struct interface *interface_find(const struct registry *registry, uint32_t number)
{
	for (const struct network *network = registry->networks; network; network = network->next)
		for (struct interface *found = network->interfaces; found; found = found->next)
			if (found->number == number)
				return found;
	return NULL;
}

struct interface *interface_find_own(const struct registry *registry, uid_t uid, const char *name)
{
	char text[IFNAMSIZ];

	for (const struct network *network = registry->networks; network; network = network->next)
		for (struct interface *found = network->interfaces; found; found = found->next) {
			platform_interface_name(found->number, text);
			if (strcmp(text, name) == 0)
				return uid == 0 || found->record.uid == uid ? found : NULL;
		}
	return NULL;
}

struct interface *interface_find_mac(const struct network *network, struct mac mac)
{
	for (struct interface *found = network->interfaces; found; found = found->next)
		if (memcmp(&found->record.mac, &mac, sizeof(mac)) == 0)
			return found;
	return NULL;
}

static bool mac_is_kept(void *context, struct mac mac)
{
	return interface_find_mac(context, mac) || configured_reservation_has_address(context, mac);
}

static void choose_id(const struct network *network, const struct create_interface_call *call,
	struct interface_record *record)
{
	struct registry *registry = network->registry;
	uint8_t random[UUID_SIZE];

	if (call->has_interface_id) {
		record->interface_id = call->interface_id;
		return;
	}
	if (*call->hostname) {
		record->interface_id = interface_id_from_hostname(
			network->name, record->uid, call->hostname, registry->instance);
		return;
	}
	platform_randomize(registry->platform, random, sizeof(random));
	record->interface_id = interface_id_from_random(random);
}

static int check_conflict(const struct network *network, struct mac mac, struct failure *failure)
{
	const struct interface *holder = interface_find_mac(network, mac);
	char mac_text[MAC_TEXT_SIZE];
	char uuid_text[UUID_TEXT_SIZE];
	char name[IFNAMSIZ];

	if (!holder)
		return 0;
	mac_to_text(mac, mac_text);
	uuid_to_text(holder->record.interface_id, uuid_text);
	platform_interface_name(holder->number, name);
	return failure_set(failure, BROKER_ERROR_CONFLICT,
		"MAC %s is in use on network \"%s\" by interface %s (%s) of user %d; stop that VM, "
		"or give this one another MAC, interface id or hostname",
		mac_text, network->name, name, uuid_text, (int)holder->record.uid);
}

/* What was asked for, else what is reserved for the VM. */
static int choose_hostname(const struct network *network, const struct create_interface_call *call,
	struct interface_record *record, struct failure *failure)
{
	const struct config_reservation *reservation =
		configured_reservation_find(network, record->mac, &record->interface_id);

	if (*call->hostname)
		return configured_reservation_check_name(network, record, call->hostname, failure);
	if (reservation)
		memcpy(record->hostname, reservation->name, sizeof(record->hostname));
	return 0;
}

/* Id and MAC: what was asked for, or what follows from it. */
static int choose_identity(const struct network *network, const struct create_interface_call *call,
	struct interface_record *record, struct failure *failure)
{
	int error;

	choose_id(network, call, record);
	record->mac = call->has_mac ? call->mac
				    : mac_from_interface_id(
					      &record->interface_id, network->registry->instance);
	error = policy_check_mac(record->mac, failure);
	if (!error)
		error = check_conflict(network, record->mac, failure);
	return error ? error : choose_hostname(network, call, record, failure);
}

static int reserve_address(
	struct network *network, struct interface_record *record, struct failure *failure)
{
	char subnet[SUBNET_TEXT_SIZE];
	struct address_pool pool;
	uint32_t offset;
	int claimed, result;

	claimed = configured_reservation_claim(network, record, failure);
	if (claimed < 0)
		return claimed;
	address_pool_split(network->link.subnet, network->settings.gateway_offset,
		network->settings.last_offset, &pool);
	result = reservations_take(&network->memory.reservations, record->mac, pool.reserved_first,
		pool.reserved_last, mac_is_kept, network, &offset);
	if (result == -ENOSPC) {
		ipv4_subnet_to_text(network->link.subnet, subnet);
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"network \"%s\" has no free address left in %s; stop a VM on it, or "
			"configure a larger subnet",
			network->name, subnet);
	}
	if (result > 0 || claimed > 0 || (result == 0 && network->memory_is_unsaved))
		result = network_save_memory(network);
	if (result < 0)
		return failure_set(failure, BROKER_ERROR_INTERNAL,
			"the address could not be recorded: %s", strerror(-result));
	record->address = ipv4_subnet_host(network->link.subnet, offset);
	return 0;
}

static uint32_t choose_number(const struct registry *registry)
{
	uint32_t number;

	do
		platform_randomize(registry->platform, &number, sizeof(number));
	while (interface_find(registry, number));
	return number;
}

/* One try at one number: record first, so that a TAP is never without its owner. */
static int try_attach(struct network *network, struct interface *interface,
	struct interface_fds *ret_fds, char *detail)
{
	struct registry *registry = network->registry;
	const struct interface_record *record = &interface->record;
	int error = records_save_interface(registry->records, interface->number, record);

	if (error) {
		snprintf(detail, PLATFORM_DETAIL_SIZE, "its record could not be written: %s",
			strerror(-error));
		return error;
	}
	error = platform_attach(registry->platform, network->name,
		&(struct platform_port){
			.number = interface->number,
			.queues = record->queues,
			.isolated = interface->isolated,
			.locked = interface->locked,
			.named = interface->named,
			.owner = registry->is_rootless ? 0 : record->uid,
			.mac = record->mac,
			.address = record->address,
			.uplink = network_is_bridged(network) ? network->settings.uplink : NULL,
		},
		ret_fds->fds, detail);
	if (error < 0) {
		records_remove_interface(registry->records, interface->number);
		return error;
	}
	interface->is_leased = error > 0;
	ret_fds->count = interface->named ? 0 : record->queues;
	return 0;
}

/* Behind the place of the queues. A VM does without where the host has none. */
static void open_vhosts(struct network *network, uint32_t queues, struct interface_fds *fds)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error = platform_open_vhosts(
		network->registry->platform, queues, fds->fds + queues, detail);

	if (error)
		log_debug(network->tag, "an interface goes without vhost-net: %s",
			*detail ? detail : strerror(-error));
	else
		fds->vhosts_count = queues;
}

static int attach(struct network *network, struct interface *interface, bool wants_vhost,
	struct interface_fds *ret_fds, struct failure *failure)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	struct interface_fds fds = {.count = 0};
	int error = -EEXIST;

	/* First, because attaching waits until the privileged part has closed its copies: an open
	 * vhost-net keeps its TAP. */
	if (wants_vhost)
		open_vhosts(network, interface->record.queues, &fds);
	for (int tries = 0; error == -EEXIST && tries < NUMBER_TRIES; tries++) {
		interface->number = choose_number(network->registry);
		error = try_attach(network, interface, &fds, detail);
	}
	if (!error) {
		fds.count += fds.vhosts_count;
		*ret_fds = fds;
		return 0;
	}
	for (size_t i = 0; i < fds.vhosts_count; i++)
		fd_close(fds.fds[interface->record.queues + i]);
	return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
		"no interface on network \"%s\": %s", network->name,
		*detail ? detail : strerror(-error));
}

/* Peers can make and drop interfaces as fast as they like. */
static bool may_log(struct registry *registry)
{
	uint32_t suppressed;

	if (!rate_limit_allow(&registry->interface_lines, rate_limit_now_ms(), &suppressed))
		return false;
	if (suppressed > 0)
		log_info("main", "%u lines on interfaces were left out", suppressed);
	return true;
}

static void report_creation(const struct interface *interface)
{
	char mac[MAC_TEXT_SIZE];
	char address[INET_ADDRSTRLEN] = "the LAN's";
	char name[IFNAMSIZ];

	if (!may_log(interface->network->registry))
		return;
	mac_to_text(interface->record.mac, mac);
	if (interface->record.address.s_addr)
		inet_ntop(AF_INET, &interface->record.address, address, sizeof(address));
	platform_interface_name(interface->number, name);
	log_info(interface->network->tag,
		"created interface %s for user %d: %sMAC %s, address %s%s%s", name,
		(int)interface->record.uid, interface->locked ? "locked to " : "", mac, address,
		interface->isolated ? ", isolated" : "",
		interface->named ? ", to be opened by name" : "");
}

static void update_hosts(struct network *network)
{
	int error = network_is_bridged(network) ? 0 : network_write_hosts(network);

	if (error)
		log_error(
			network->tag, "its hosts file could not be written: %s", strerror(-error));
}

static void link_interface(struct network *network, struct interface *interface)
{
	interface->network = network;
	interface->next = network->interfaces;
	network->interfaces = interface;
	network_settle(network);
}

/* A bridge of the host has other ports, which are not ours to isolate from; what the LAN gives a VM
 * as its address is not known here. */
static int check_port(const struct interface *interface, bool is_bridged, const char *network,
	struct failure *failure)
{
	if (!is_bridged || (!interface->isolated && !interface->locked))
		return 0;
	return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
		"network \"%s\" is of mode bridged, on which interfaces can be neither isolated "
		"nor "
		"locked; leave that out, or use mode shared or host",
		network);
}

/* A name means something in the networks' namespace only, where its owner is root. */
static int check_named(
	struct registry *registry, const struct interface_owner *owner, struct failure *failure)
{
	if (platform_shows_names(registry->platform, owner->pid))
		return 0;
	return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
		"no program outside of this broker's own network namespace can open a TAP by its "
		"name; run it inside: vmnetctl exec -- vmnet-client --attach tap ...; or attach "
		"native, with a program that takes fds");
}

int interface_create(struct network *network, const struct create_interface_call *call,
	const struct interface_owner *owner, struct interface **ret_interface,
	struct interface_fds *ret_fds, struct failure *failure)
{
	cleanup_free struct interface *interface = calloc(1, sizeof(*interface));
	bool is_bridged = network_is_bridged(network);
	struct interface_record *record;
	uid_t uid = owner->uid;
	int error;

	if (!interface)
		return failure_set(failure, BROKER_ERROR_INTERNAL, "memory is out");
	interface->isolated = network->settings.isolation || call->isolation;
	interface->locked = network->settings.lock_mac;
	interface->named = call->named;
	record = &interface->record;
	record->uid = uid;
	record->queues = call->queues ? call->queues : 1;
	snprintf(record->network, sizeof(record->network), "%s", network->name);
	snprintf(record->hostname, sizeof(record->hostname), "%s", call->hostname);
	error = check_port(interface, is_bridged, network->name, failure);
	if (!error && call->named)
		error = check_named(network->registry, owner, failure);
	if (!error)
		error = quotas_check_interface(network, uid, record->queues, failure);
	if (!error)
		error = choose_identity(network, call, record, failure);
	if (!error)
		error = vm_names_check(network, call->hostname, failure);
	if (!error && !is_bridged)
		error = reserve_address(network, record, failure);
	if (!error && (is_bridged || call->named) && owner->pid > 0)
		(void)platform_identify_process(
			network->registry->platform, owner->pid, &record->holder);
	if (!error)
		error = attach(network, interface, call->vhost, ret_fds, failure);
	if (error)
		return error;
	*ret_interface = interface;
	link_interface(network, take_ptr(interface));
	report_creation(*ret_interface);
	events_tell_interface(*ret_interface, "created", NULL);
	update_hosts(network);
	forwards_update(network->registry->forwards, NULL);
	return 0;
}

/* Its connection was lost with the broker that had it; its process may live on. */
static const char *judge_lease(
	const struct interface *interface, const struct platform_interface *link)
{
	struct platform *platform = interface->network->registry->platform;
	const struct interface_record *record = &interface->record;

	if (record->uid == RECORDS_OWNER_UNKNOWN || record->holder.pid <= 0)
		return "who had it made is not known";
	if (!link->named && memcmp(&link->mac, &record->mac, sizeof(link->mac)) != 0)
		return "its holder changed its address";
	if (platform_watch_process(platform, link->number, &record->holder) < 0)
		return "the process that had it made has ended";
	return NULL;
}

void interface_adopt(struct network *network, const struct platform_interface *link)
{
	uint32_t number = link->number;
	const char *reason;
	struct interface *interface = calloc(1, sizeof(*interface));
	char name[IFNAMSIZ];
	int error;

	if (!interface)
		return;
	interface->number = number;
	interface->is_leased = link->is_leased;
	interface->isolated = link->isolated;
	interface->locked = link->locked;
	interface->named = link->named;
	platform_interface_name(number, name);
	error = records_load_interface(network->registry->records, number, &interface->record);
	if (error) {
		interface->record.uid = RECORDS_OWNER_UNKNOWN;
		log_warn(network->tag, "adopted interface %s without its owner: its record is %s",
			name, error == -EBADMSG ? "corrupt and was set aside" : strerror(-error));
	} else {
		log_info(network->tag, "adopted interface %s of user %d", name,
			(int)interface->record.uid);
	}
	link_interface(network, interface);
	reason = link->is_leased ? judge_lease(interface, link) : NULL;
	if (reason)
		interface_revoke(network->registry, number, reason);
}

void interface_report_tampering(struct registry *registry, uint32_t number, const char *tampering)
{
	const struct interface *interface = interface_find(registry, number);

	if (!interface)
		return;
	events_tell(registry, &(struct event){
				      .kind = BROKER_EVENT_WARNING,
				      .what = "tampering",
				      .network = interface->network->name,
				      .interface = interface,
				      .has_owner = true,
				      .owner = interface->record.uid,
				      .text = tampering,
			      });
}

void interface_revoke(struct registry *registry, uint32_t number, const char *reason)
{
	struct interface *interface = interface_find(registry, number);
	char detail[PLATFORM_DETAIL_SIZE] = "";
	char name[IFNAMSIZ];
	int error = platform_revoke(registry->platform, number, detail);

	platform_interface_name(number, name);
	if (!error && interface)
		snprintf(interface->end_reason, sizeof(interface->end_reason), "%s", reason);
	if (error && error != -ENOENT)
		log_error(interface ? interface->network->tag : "main",
			"interface %s could not be deleted (%s): %s", name, reason,
			*detail ? detail : strerror(-error));
	else if (!error)
		log_warn(interface ? interface->network->tag : "main",
			"deleted interface %s of user %d: %s", name,
			interface ? (int)interface->record.uid : -1, reason);
}

/* Another VM may have waited for its name, or a configured reservation for its address. */
static void pass_on(struct network *network, const struct interface_record *gone)
{
	bool changed = configured_reservations_follow(network, gone);

	if (changed)
		network_save_memory(network);
	if (changed || *gone->hostname || *gone->told_name)
		update_hosts(network);
}

void interface_release(struct registry *registry, uint32_t number)
{
	struct interface *interface = interface_find(registry, number);
	struct interface **link;
	struct network *network;
	char name[IFNAMSIZ];
	struct interface_record gone;
	int error;

	if (!interface)
		return;
	network = interface->network;
	gone = interface->record;
	for (link = &network->interfaces; *link != interface; link = &(*link)->next)
		;
	*link = interface->next;
	platform_interface_name(number, name);
	if (may_log(registry))
		log_info(network->tag, "released interface %s of user %d", name, (int)gone.uid);
	events_tell_interface(interface, "gone",
		*interface->end_reason ? interface->end_reason : "its holder closed it");
	interface_lease_done(interface);
	free(interface);
	platform_unwatch_process(registry->platform, number);
	error = records_remove_interface(registry->records, number);
	if (error)
		log_warn(network->tag, "the record of interface %s could not be removed: %s", name,
			strerror(-error));
	if (network->state != NETWORK_ABSENT)
		pass_on(network, &gone);
	forwards_update(registry->forwards, NULL);
	network_settle(network);
}

void interface_forget_all(struct network *network)
{
	while (network->interfaces) {
		struct interface *interface = network->interfaces;

		network->interfaces = interface->next;
		interface_lease_done(interface);
		free(interface);
	}
}
