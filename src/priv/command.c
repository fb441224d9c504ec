#include "priv/command.h"

#include "priv/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What dnsmasq does without being told, too, but for mode host. */
#define ADVERTISEMENT_INTERVAL_S 600
#define ADVERTISEMENT_LIFETIME_S 1800

void command_done(struct command *command)
{
	for (size_t i = 0; i < command->count; i++)
		free(command->arguments[i]);
	*command = (struct command){0};
}

/* Does nothing after a failure, so that a list of calls needs one check at its end. */
static void add(struct command *command, int *error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void add(struct command *command, int *error, const char *format, ...)
{
	va_list arguments;
	char *text;
	int length;

	if (*error)
		return;
	if (command->count >= COMMAND_ARGUMENTS_MAX) {
		*error = -E2BIG;
		return;
	}
	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (length < 0)
		*error = -ENOMEM;
	else
		command->arguments[command->count++] = text;
}

static void address_text(struct ipv4_subnet subnet, uint32_t offset, char text[INET_ADDRSTRLEN])
{
	struct in_addr address = ipv4_subnet_host(subnet, offset);

	inet_ntop(AF_INET, &address, text, INET_ADDRSTRLEN);
}

static void add_process(struct command *command, int *error)
{
	add(command, error, "--conf-file=/dev/null");
	add(command, error, "--keep-in-foreground");
	add(command, error, "--pid-file=");
	/* It is the right user already, and would die trying to become one. */
	add(command, error, "--user=");
	add(command, error, "--group=");
	add(command, error, "--log-facility=-");
	/* A queue of lines: whoever reads the log must not be able to stop the service. */
	add(command, error, "--log-async=25");
}

static void prefix_text(const struct bridge_facts *facts, char text[INET6_ADDRSTRLEN])
{
	struct in6_addr prefix = {0};

	memcpy(&prefix, facts->ipv6_prefix, IPV6_PREFIX_SIZE);
	inet_ntop(AF_INET6, &prefix, text, INET6_ADDRSTRLEN);
}

static void add_dns(struct command *command, int *error, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, const struct dnsmasq_options *options)
{
	char domain[NETWORK_DOMAIN_SIZE];
	char subnet[SUBNET_TEXT_SIZE];
	char prefix[INET6_ADDRSTRLEN];

	ipv4_subnet_to_text(facts->subnet, subnet);
	prefix_text(facts, prefix);
	network_domain(facts->network, domain);
	if (*wanted->domain)
		(void)text_copy(domain, sizeof(domain), wanted->domain);
	if (!(wanted->services & VERB_SERVICE_DNS)) {
		add(command, error, "--port=0");
		add(command, error, "--domain=%s", domain);
		return;
	}
	add(command, error, "--no-hosts");
	add(command, error, "--domain-needed");
	add(command, error, "--dns-loop-detect");
	add(command, error, "--domain=%s", domain);
	add(command, error, "--local=/%s/", domain);
	/* The first name is the one that addresses are resolved back to. */
	add(command, error, "--interface-name=_gateway.%s,%s", domain, facts->name);
	add(command, error, "--interface-name=_gateway,%s", facts->name);
	add(command, error, "--interface-name=host.%s,%s", domain, facts->name);
	add(command, error, "--interface-name=host,%s", facts->name);
	add(command, error, "--rev-server=%s", subnet);
	if (facts->has_ipv6)
		add(command, error, "--rev-server=%s/64", prefix);
	add(command, error, "--addn-hosts=%s/networks/%s.names", options->runtime_dir,
		facts->network);
	if (facts->mode == NETWORK_MODE_HOST)
		add(command, error, "--no-resolv");
	else
		add(command, error, "--resolv-file=%s/networks/%s.resolvers", options->runtime_dir,
			facts->network);
}

static void add_range(struct command *command, int *error, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted)
{
	struct ipv4_subnet subnet = facts->subnet;
	char first[INET_ADDRSTRLEN], last[INET_ADDRSTRLEN], mask[INET_ADDRSTRLEN];
	struct in_addr mask_address = ipv4_subnet_mask(subnet);
	struct address_pool pool;

	address_pool_split(subnet, facts->gateway_offset, wanted->last_offset, &pool);
	inet_ntop(AF_INET, &mask_address, mask, sizeof(mask));
	if (pool.dynamic_first > pool.dynamic_last) {
		address_text(subnet, 0, first);
		add(command, error, "--dhcp-range=%s,static,%s,%us", first, mask, wanted->lease_s);
		return;
	}
	address_text(subnet, pool.dynamic_first, first);
	address_text(subnet, pool.dynamic_last, last);
	add(command, error, "--dhcp-range=%s,%s,%s,%us", first, last, mask, wanted->lease_s);
}

/* Every reservation and the whole dynamic pool at once, up to what a network can have of VMs. */
static uint32_t lease_limit(struct ipv4_subnet subnet)
{
	uint32_t size = ipv4_subnet_size(subnet);

	return size < 65536 ? size : 65536;
}

static void add_dhcp(struct command *command, int *error, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted)
{
	const char *name;

	add_range(command, error, facts, wanted);
	add(command, error, "--dhcp-authoritative");
	add(command, error, "--dhcp-rapid-commit");
	add(command, error, "--no-ping");
	/* Leases by MAC: a reservation must hold whatever client identifier the guest makes up. */
	add(command, error, "--dhcp-ignore-clid");
	add(command, error, "--dhcp-lease-max=%u", lease_limit(facts->subnet));
	add(command, error, "--dhcp-option-force=option:mtu,%u", facts->mtu);
	if (facts->mode == NETWORK_MODE_HOST)
		add(command, error, "--dhcp-option=option:router");
	for (size_t i = 0; (name = hostname_get_reserved(i)); i++)
		add(command, error, "--dhcp-name-match=set:reserved,%s", name);
	add(command, error, "--dhcp-ignore-names=tag:reserved");
}

/*
 * VMs make their addresses themselves (RFC 4862) and ask for the rest (RFC 8415 6.1). Their names
 * get the address that follows from their MAC when it answers. A lifetime of 0: no router (RFC 4861
 * 4.2).
 */
static void add_router_advertisement(struct command *command, int *error,
	const struct bridge_facts *facts, const struct verb_start_dnsmasq *wanted)
{
	char prefix[INET6_ADDRSTRLEN];

	prefix_text(facts, prefix);
	add(command, error, "--dhcp-range=%s,ra-stateless,ra-names,64", prefix);
	/* A line for each would wake its reader for nothing. */
	add(command, error, "--quiet-ra");
	add(command, error, "--ra-param=%s,mtu:%u,%u,%u", facts->name, facts->mtu,
		ADVERTISEMENT_INTERVAL_S,
		facts->mode == NETWORK_MODE_HOST ? 0 : ADVERTISEMENT_LIFETIME_S);
	if (wanted->services & VERB_SERVICE_DNS)
		add(command, error, "--dhcp-option=option6:dns-server,[%s1]", prefix);
}

int command_build_dnsmasq(struct command *command, const char *path,
	const struct bridge_facts *facts, const struct verb_start_dnsmasq *wanted,
	const struct dnsmasq_options *options)
{
	int error = 0;

	add(command, &error, "%s", path);
	add_process(command, &error);
	add(command, &error, "--bind-interfaces");
	add(command, &error, "--interface=%s", facts->name);
	/* Every --interface brings lo along. */
	add(command, &error, "--except-interface=lo");
	add_dns(command, &error, facts, wanted, options);
	if (wanted->services & VERB_SERVICE_DHCP)
		add_dhcp(command, &error, facts, wanted);
	if (facts->has_ipv6 && wanted->services & VERB_SERVICE_ROUTER_ADVERTISEMENT)
		add_router_advertisement(command, &error, facts, wanted);
	add(command, &error, "--dhcp-leasefile=%s/%s.leases", options->state_dir, facts->network);
	add(command, &error, "--dhcp-hostsfile=%s/networks/%s.hosts", options->runtime_dir,
		facts->network);
	return error;
}
