#include "priv/command.h"

#include "priv/pool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

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

static void add_dns(struct command *command, int *error, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted)
{
	char domain[NETWORK_DOMAIN_SIZE];
	char subnet[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(facts->subnet, subnet);
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
	add(command, error, "--interface-name=_gateway.%s,%s/4", domain, facts->name);
	add(command, error, "--interface-name=_gateway,%s/4", facts->name);
	add(command, error, "--interface-name=host.%s,%s/4", domain, facts->name);
	add(command, error, "--interface-name=host,%s/4", facts->name);
	add(command, error, "--rev-server=%s", subnet);
	if (facts->mode == NETWORK_MODE_HOST)
		add(command, error, "--no-resolv");
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
	/* A guest of that name would be everybody's proxy (VU#598349). */
	add(command, error, "--dhcp-name-match=set:wpad,wpad");
	add(command, error, "--dhcp-ignore-names=tag:wpad");
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
	add_dns(command, &error, facts, wanted);
	if (wanted->services & VERB_SERVICE_DHCP)
		add_dhcp(command, &error, facts, wanted);
	add(command, &error, "--dhcp-leasefile=%s/%s.leases", options->state_dir, facts->network);
	add(command, &error, "--dhcp-hostsfile=%s/networks/%s.hosts", options->runtime_dir,
		facts->network);
	return error;
}
