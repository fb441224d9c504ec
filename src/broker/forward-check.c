#include "broker/forward-check.h"

#include "base/cleanup.h"
#include "broker/access.h"
#include "broker/bridged.h"
#include "broker/configured-reservations.h"
#include "broker/interface.h"
#include "broker/quotas.h"
#include "broker/vm-names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define PORT_DNS    53
#define PORT_DHCP   67
#define PORT_DHCPV6 547

/* --- where a forward leads --- */

static void set_ipv4(struct endpoint *endpoint, struct in_addr address)
{
	memset(endpoint->address, 0, sizeof(endpoint->address));
	memcpy(endpoint->address, &address, sizeof(address));
}

static struct in_addr get_ipv4(const struct endpoint *endpoint)
{
	struct in_addr address;

	memcpy(&address, endpoint->address, sizeof(address));
	return address;
}

static struct in_addr get_gateway(const struct network *network)
{
	struct broker_network described;

	network_describe(network, &described);
	return described.gateway;
}

/* A VM can have it: neither the subnet nor its broadcast address nor the host's own. */
static bool is_for_vms(const struct network *network, struct in_addr address)
{
	struct ipv4_subnet subnet = network->link.subnet;
	uint32_t offset = ntohl(address.s_addr) - ntohl(subnet.address.s_addr);

	return ipv4_subnet_contains(subnet, address) && offset != 0 &&
	       offset != ipv4_subnet_size(subnet) - 1 &&
	       address.s_addr != get_gateway(network).s_addr;
}

static bool is_ipv6_for_vms(const struct network *network, const uint8_t *address)
{
	static const uint8_t zeros[16 - IPV6_PREFIX_SIZE];
	const uint8_t *prefix = network->link.ipv6_prefix.s6_addr;
	struct in6_addr gateway = ipv6_prefix_gateway(prefix);

	return network->link.has_ipv6 && memcmp(address, prefix, IPV6_PREFIX_SIZE) == 0 &&
	       memcmp(address + IPV6_PREFIX_SIZE, zeros, sizeof(zeros)) != 0 &&
	       memcmp(address, &gateway, sizeof(gateway)) != 0;
}

static bool is_address_for_vms(const struct network *network, const struct endpoint *endpoint)
{
	return endpoint->is_ipv6 ? is_ipv6_for_vms(network, endpoint->address)
				 : is_for_vms(network, get_ipv4(endpoint));
}

/*
 * The address a VM gives itself is its own affair; the one it is known by is what follows from its
 * MAC (RFC 4291, appendix A: the modified EUI-64), as dnsmasq takes it to be with "ra-names".
 */
static void set_ipv6(struct endpoint *endpoint, const struct network *network, struct mac mac)
{
	const uint8_t *bytes = mac.bytes;
	const uint8_t identifier[16 - IPV6_PREFIX_SIZE] = {
		bytes[0] ^ 2, bytes[1], bytes[2], 0xff, 0xfe, bytes[3], bytes[4], bytes[5]};

	memcpy(endpoint->address, &network->link.ipv6_prefix, IPV6_PREFIX_SIZE);
	memcpy(endpoint->address + IPV6_PREFIX_SIZE, identifier, sizeof(identifier));
}

/* Its address of the family that is wanted. */
static struct endpoint get_address(
	const struct interface *interface, const struct forward_spec *spec)
{
	struct endpoint address = spec->target;

	if (address.is_ipv6)
		set_ipv6(&address, interface->network, interface->record.mac);
	else
		set_ipv4(&address, interface->record.address);
	return address;
}

/* As DNS knows it. */
static bool has_name(const struct interface *interface, const char *name)
{
	const char *configured =
		configured_reservation_name(interface->network, interface->record.mac);

	return strcasecmp(name, configured ? configured : vm_names_get(interface)) == 0;
}

static bool is_target(const struct forward_spec *spec, const struct interface *interface)
{
	struct endpoint address;

	if (*spec->hostname)
		return has_name(interface, spec->hostname);
	address = get_address(interface, spec);
	return endpoints_are_equal(&address, &spec->target);
}

/* The one that uid's forward leads to. Listed newest first: the oldest that fits. */
static const struct interface *find_target(
	const struct network *network, const struct forward_spec *spec, uid_t uid)
{
	const struct interface *found = NULL;

	for (const struct interface *interface = network->interfaces; interface;
		interface = interface->next)
		if (is_target(spec, interface) && (uid == 0 || interface->record.uid == uid))
			found = interface;
	return found;
}

bool forward_find_address(const struct registry *registry, const struct forward_record *record,
	struct endpoint *ret_address)
{
	const struct network *network = registry_find(registry, record->network);
	const struct forward_spec *spec = &record->spec;
	const struct interface *interface;
	struct endpoint address = spec->target;

	if (!network || network->state == NETWORK_ABSENT || network_is_bridged(network))
		return false;
	interface = find_target(network, spec, record->uid);
	if (interface)
		address = get_address(interface, spec);
	/* Only root may know of addresses that VMs gave themselves. */
	else if (*spec->hostname || record->uid != 0)
		return false;
	if (!is_address_for_vms(network, &address))
		return false;
	*ret_address = address;
	return true;
}

/* --- whether there may be one --- */

static size_t count_on_network(const struct network *network, uid_t uid)
{
	const struct forwards *forwards = network->registry->forwards;
	size_t count = 0;

	for (const struct forward *forward = forwards->list; forward; forward = forward->next)
		count += forward->record.origin != FORWARD_CONFIGURED &&
			 forward->record.uid == uid &&
			 strcmp(forward->record.network, network->name) == 0;
	return count;
}

/* Pinned ones outlive a network from options, which is forgotten when it ends. */
static size_t count_elsewhere(const struct forwards *forwards, uid_t uid)
{
	size_t count = 0;

	for (const struct forward *forward = forwards->list; forward; forward = forward->next)
		count += forward->record.origin != FORWARD_CONFIGURED &&
			 forward->record.uid == uid &&
			 !registry_find_entry(forwards->registry, forward->record.network);
	return count;
}

static int check_quota(const struct forwards *forwards, const struct network *network, uid_t uid,
	struct failure *failure)
{
	if (forwards->count >= FORWARDS_MAX)
		return failure_set(failure, BROKER_ERROR_QUOTA_EXCEEDED,
			"there are %d forwards already, as many as can be; remove some",
			FORWARDS_MAX);
	return quotas_check_forward(
		network, uid, count_on_network, count_elsewhere(forwards, uid), failure);
}

static int check_port(const struct forwards *forwards, const struct forward_spec *spec, uid_t uid,
	struct failure *failure)
{
	uint32_t first = platform_first_unprivileged_port(forwards->registry->platform);

	if (uid == 0 || spec->listen.port >= first)
		return 0;
	if (forwards->registry->is_rootless)
		return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
			"port %u is for root, as all below %u; choose a higher one, or have root "
			"run \"sysctl net.ipv4.ip_unprivileged_port_start=%u\"",
			spec->listen.port, first, spec->listen.port);
	return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
		"port %u is for root, as all below %u (net.ipv4.ip_unprivileged_port_start); "
		"choose a higher one, or as root: sysctl net.ipv4.ip_unprivileged_port_start=%u",
		spec->listen.port, first, spec->listen.port);
}

static bool is_gateway_of(const struct network *network, const struct endpoint *listen)
{
	struct in6_addr gateway = ipv6_prefix_gateway(network->link.ipv6_prefix.s6_addr);

	if (network->state == NETWORK_ABSENT || network_is_bridged(network))
		return false;
	if (listen->is_ipv6)
		return network->link.has_ipv6 &&
		       memcmp(listen->address, &gateway, sizeof(gateway)) == 0;
	return get_gateway(network).s_addr == get_ipv4(listen).s_addr;
}

static bool is_gateway(const struct registry *registry, const struct endpoint *listen)
{
	for (struct network *network = registry->networks; network; network = network->next)
		if (is_gateway_of(network, listen))
			return true;
	return false;
}

static int check_services(
	const struct forwards *forwards, const struct forward_spec *spec, struct failure *failure)
{
	const struct endpoint *listen = &spec->listen;
	uint16_t dhcp = listen->is_ipv6 ? PORT_DHCPV6 : PORT_DHCP;

	if (listen->port != PORT_DNS && (listen->port != dhcp || spec->protocol != IPPROTO_UDP))
		return 0;
	if (!endpoint_has_every_address(listen) && !is_gateway(forwards->registry, listen))
		return 0;
	return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
		"port %u serves DNS or DHCP to VMs at the gateways of networks; name another "
		"address of the host to listen on, or another port",
		listen->port);
}

static int check_listen(
	const struct registry *registry, const struct forward_spec *spec, struct failure *failure)
{
	const struct in6_addr *address =
		(const struct in6_addr *)(const void *)spec->listen.address;
	bool is_multicast = spec->listen.is_ipv6
				    ? IN6_IS_ADDR_MULTICAST(address)
				    : IN_MULTICAST(ntohl(get_ipv4(&spec->listen).s_addr)) ||
					      get_ipv4(&spec->listen).s_addr == INADDR_NONE;

	if (is_multicast)
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
			"no connection can be made to a multicast or broadcast address; listen on "
			"one of the host's own");
	/* The forwarder of a rootless broker has a socket there as anybody has. */
	if (!registry->is_rootless && spec->listen.is_ipv6 && IN6_IS_ADDR_LOOPBACK(address))
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
			"Linux leads nothing from ::1 to a VM; listen on 127.0.0.1, or on another "
			"address of the host");
	return 0;
}

static int check_address(
	const struct network *network, const struct forward_spec *spec, struct failure *failure)
{
	char subnet[SUBNET_TEXT_SIZE];
	char target[FORWARD_TARGET_SIZE];
	char prefix[INET6_ADDRSTRLEN] = "nothing";

	if (network->state == NETWORK_ABSENT)
		return 0;
	if (*spec->hostname ? !spec->target.is_ipv6 || network->link.has_ipv6
			    : is_address_for_vms(network, &spec->target))
		return 0;
	ipv4_subnet_to_text(network->link.subnet, subnet);
	forward_target_to_text(spec, target);
	if (network->link.has_ipv6)
		inet_ntop(AF_INET6, &network->link.ipv6_prefix, prefix, sizeof(prefix));
	return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
		"%s is no VM's address on network \"%s\", which has %s, and %s%s of IPv6", target,
		network->name, subnet, prefix, network->link.has_ipv6 ? "/64" : "");
}

/* A VM that comes later is somebody's, too, and then the forward leads to its owner's only. */
static int check_owner(const struct network *network, const struct forward_spec *spec, uid_t uid,
	struct failure *failure)
{
	char target[FORWARD_TARGET_SIZE];

	if (uid == 0 || find_target(network, spec, uid) || !find_target(network, spec, 0))
		return 0;
	forward_target_to_text(spec, target);
	return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
		"%s on network \"%s\" is another user's VM; forward to one of your own, or ask its "
		"owner or root",
		target, network->name);
}

const struct forward *forward_find_conflict(
	const struct forwards *forwards, uint8_t protocol, const struct endpoint *listen)
{
	for (const struct forward *forward = forwards->list; forward; forward = forward->next)
		if (forward->record.spec.protocol == protocol &&
			endpoints_overlap(&forward->record.spec.listen, listen))
			return forward;
	return NULL;
}

static int check_conflict(
	const struct forwards *forwards, const struct forward_spec *spec, struct failure *failure)
{
	const struct forward *other =
		forward_find_conflict(forwards, spec->protocol, &spec->listen);
	char listen[ENDPOINT_TEXT_SIZE];

	if (!other)
		return 0;
	endpoint_to_text(&other->record.spec.listen, listen);
	return failure_set(failure, BROKER_ERROR_CONFLICT,
		"%s port %u is taken by forward %u of user %d, which listens on %s; choose another "
		"port, or remove that forward",
		forward_protocol_to_text(spec->protocol), spec->listen.port, other->record.id,
		(int)other->record.uid, listen);
}

bool forward_find_program(const struct forwards *forwards, uint8_t protocol,
	const struct endpoint *listen, char text[CONFIG_ERROR_SIZE])
{
	struct platform_listener program;
	char address[ENDPOINT_TEXT_SIZE];
	int found =
		platform_find_listener(forwards->registry->platform, protocol, listen, &program);

	if (found <= 0)
		return false;
	endpoint_to_text(&program.endpoint, address);
	snprintf(text, CONFIG_ERROR_SIZE,
		"%s port %u is in use on the host: a program of user %d listens on %s (ss -lnp%c "
		"'sport = :%u' names it)",
		forward_protocol_to_text(protocol), listen->port, (int)program.uid, address,
		protocol == IPPROTO_UDP ? 'u' : 't', listen->port);
	return true;
}

static int check_program(
	const struct forwards *forwards, const struct forward_spec *spec, struct failure *failure)
{
	char text[CONFIG_ERROR_SIZE];

	if (!forward_find_program(forwards, spec->protocol, &spec->listen, text))
		return 0;
	return failure_set(failure, BROKER_ERROR_CONFLICT,
		"%.300s; it would be cut off: choose another port, or stop that program", text);
}

int forward_check(const struct forwards *forwards, const struct forward_call *call,
	const struct credentials *asker, struct failure *failure)
{
	const struct forward_spec *spec = &call->spec;
	const struct network *network = registry_find(forwards->registry, call->network);
	uid_t uid = asker->uid;
	int error;

	if (!network)
		return registry_fail_unknown(forwards->registry, call->network, asker, failure);
	/* The refusals behind it tell of subnets and of VMs of others. */
	error = access_check(network, asker, failure);
	if (error)
		return error;
	if (network_is_bridged(network))
		return failure_set(failure, BROKER_ERROR_INVALID_REQUEST,
			"VMs of network \"%s\", mode bridged, have addresses of their own on the "
			"LAN; connect to those",
			network->name);
	error = check_quota(forwards, network, uid, failure);
	if (!error)
		error = check_port(forwards, spec, uid, failure);
	if (!error)
		error = check_services(forwards, spec, failure);
	if (!error)
		error = check_listen(forwards->registry, spec, failure);
	if (!error)
		error = check_address(network, spec, failure);
	if (!error)
		error = check_owner(network, spec, uid, failure);
	if (!error)
		error = check_conflict(forwards, spec, failure);
	return error ? error : check_program(forwards, spec, failure);
}
