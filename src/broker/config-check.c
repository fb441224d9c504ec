/* What can be said of a network when all its keys are known, and of networks among each other. */
#include "broker/config-parse.h"

#include "priv/pool.h"

#include <arpa/inet.h>
#include <string.h>

static bool mask_to_prefix_length(struct in_addr mask, uint8_t *ret_prefix_length)
{
	uint32_t inverse = ~ntohl(mask.s_addr);

	/* Ones from the right only, for 8 to 30 bits of mask. */
	if (inverse & (inverse + 1) || inverse < 3 || inverse > 0xffffff)
		return false;
	*ret_prefix_length = (uint8_t)(32 - __builtin_popcount(inverse));
	return true;
}

/* start, end and mask in place of subnet. */
static void apply_range(struct config_parse *parse)
{
	struct network_settings *settings = &parse->network->settings;
	struct in_addr start = parse->range[CONFIG_RANGE_START];
	struct in_addr end = parse->range[CONFIG_RANGE_END];
	struct ipv4_subnet subnet;
	uint32_t base;

	if (!mask_to_prefix_length(parse->range[CONFIG_RANGE_MASK], &subnet.prefix_length)) {
		config_add_error(parse->network, "mask",
			"no mask of 8 to 30 bits, such as \"255.255.255.0\"");
		return;
	}
	subnet.address.s_addr = start.s_addr & parse->range[CONFIG_RANGE_MASK].s_addr;
	base = ntohl(subnet.address.s_addr);
	if (!ipv4_subnet_is_private(subnet))
		config_add_error(parse->network, "start",
			"not private; inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
	else if (start.s_addr == subnet.address.s_addr)
		config_add_error(parse->network, "start",
			"is the subnet's own address; the first for the host is one more");
	else if (!ipv4_subnet_contains(subnet, end) ||
		 !address_offsets_are_valid(
			 subnet, ntohl(start.s_addr) - base, ntohl(end.s_addr) - base))
		config_add_error(parse->network, "end",
			"must lie behind start in its subnet, and before that's last address");
	else {
		settings->has_subnet = true;
		settings->subnet = subnet;
		settings->gateway_offset = ntohl(start.s_addr) - base;
		settings->last_offset = ntohl(end.s_addr) - base;
	}
}

static void check_range(struct config_parse *parse)
{
	static const char *const names[] = {"start", "end", "mask"};
	int given = 0, valid = 0;

	for (int i = 0; i < CONFIG_RANGE_COUNT; i++) {
		given += config_has_key(parse, names[i]);
		valid += parse->has_range[i];
	}
	if (given == 0)
		return;
	if (config_has_key(parse, "subnet"))
		config_add_error(parse->network, "subnet",
			"given with start, end or mask; give it alone, or these three");
	else if (given < CONFIG_RANGE_COUNT)
		config_add_error(parse->network, NULL, "start, end and mask are needed together");
	else if (valid == CONFIG_RANGE_COUNT)
		apply_range(parse);
}

static void check_reservation(
	struct config_network *network, const struct config_reservation *reservation)
{
	const struct network_settings *settings = &network->settings;
	struct ipv4_subnet subnet = settings->subnet;
	uint32_t offset = ntohl(reservation->address.s_addr) - ntohl(subnet.address.s_addr);
	uint32_t gateway = settings->gateway_offset ? settings->gateway_offset : 1;
	char subnet_text[SUBNET_TEXT_SIZE], address[INET_ADDRSTRLEN];

	ipv4_subnet_to_text(subnet, subnet_text);
	inet_ntop(AF_INET, &reservation->address, address, sizeof(address));
	if (!ipv4_subnet_contains(subnet, reservation->address) || offset == 0 ||
		offset == ipv4_subnet_size(subnet) - 1)
		config_add_error(network, "reservations", "address %s: none for a VM in subnet %s",
			address, subnet_text);
	else if (offset == gateway)
		config_add_error(network, "reservations",
			"address %s: the host's own on this network", address);
}

static void check_reservations(struct config_parse *parse)
{
	struct config_network *network = parse->network;

	for (size_t i = 0; i < network->reservations_count; i++) {
		if (!network->reservations[i].has_address)
			continue;
		if (network->settings.has_subnet) {
			check_reservation(network, &network->reservations[i]);
			continue;
		}
		/* Else a mistake in these has been told. */
		if (!config_has_key(parse, "subnet") && !config_has_key(parse, "start"))
			config_add_error(network, "reservations",
				"addresses need a subnet of the network's own; add \"subnet\"");
		return;
	}
}

static void check_uplink(struct config_parse *parse)
{
	if (parse->network->settings.mode == NETWORK_MODE_BRIDGED &&
		!config_has_key(parse, "uplink"))
		config_add_error(parse->network, "uplink",
			"missing; the interface of the host that VMs are put on, such as \"eth0\"");
}

void config_check_network(struct config_parse *parse)
{
	enum network_mode ignored;

	if (!config_has_key(parse, "mode") && !config_is_built_in(parse->network->name, &ignored)) {
		config_add_error(parse->network, "mode", "missing; one of shared, host, bridged");
		return;
	}
	config_check_modes(parse);
	check_uplink(parse);
	check_range(parse);
	check_reservations(parse);
}

static bool prefixes_are_equal(const struct network_settings *a, const struct network_settings *b)
{
	return a->has_ipv6_prefix && b->has_ipv6_prefix &&
	       memcmp(&a->ipv6_prefix, &b->ipv6_prefix, sizeof(a->ipv6_prefix)) == 0;
}

static void check_overlap(struct config_network *network, const struct config_network *earlier)
{
	const struct network_settings *settings = &network->settings;
	char text[SUBNET_TEXT_SIZE], earlier_text[SUBNET_TEXT_SIZE];

	if (settings->has_subnet && earlier->settings.has_subnet &&
		ipv4_subnets_overlap(earlier->settings.subnet, settings->subnet)) {
		ipv4_subnet_to_text(settings->subnet, text);
		ipv4_subnet_to_text(earlier->settings.subnet, earlier_text);
		config_add_error(network, settings->gateway_offset ? "start" : "subnet",
			"\"%s\": overlaps %s of network \"%s\" (%s)", text, earlier_text,
			earlier->name, earlier->file);
	}
	if (prefixes_are_equal(settings, &earlier->settings))
		config_add_error(network, "ipv6", "is the prefix of network \"%s\" (%s) too",
			earlier->name, earlier->file);
}

void config_check_overlaps(struct config *config)
{
	for (size_t i = 0; i < config->networks_count; i++)
		for (size_t j = 0; j < i && !*config->networks[i].error; j++)
			if (!*config->networks[j].error)
				check_overlap(&config->networks[i], &config->networks[j]);
}
