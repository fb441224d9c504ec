/*
 * networks.json as somebody may write it. Whatever it says, a network without a mistake is one that
 * the broker can make: every value in its range, its addresses in its subnet, and its settings the
 * same after they were written to a record and read back.
 *
 * The input is the file.
 */
#include "base/cleanup.h"
#include "broker/config.h"
#include "priv/pool.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert(), also in a build without debugging. */
static void insist(bool holds)
{
	if (!holds)
		abort();
}

static void insist_settings(const struct network_settings *settings)
{
	cleanup_json json_t *encoded = network_settings_encode(settings);
	char keys[SETTINGS_DIFFERENCES_SIZE];
	struct network_settings decoded;

	insist(settings->mode < NETWORK_MODE_COUNT);
	insist(settings->mtu >= CONFIG_MTU_MIN && settings->mtu <= CONFIG_MTU_MAX);
	insist(settings->lease_s >= SETTINGS_LEASE_MIN_S &&
		settings->lease_s <= SETTINGS_LEASE_MAX_S);
	insist(!*settings->domain || domain_is_valid(settings->domain));
	insist(settings->mode != NETWORK_MODE_BRIDGED || *settings->uplink);
	insist(settings->mode != NETWORK_MODE_HOST || !*settings->uplink);
	insist(!settings->has_ipv6_prefix || settings->ipv6_prefix.s6_addr[0] == 0xfd);
	if (settings->has_subnet)
		insist(ipv4_subnet_is_private(settings->subnet) &&
			address_offsets_are_valid(
				settings->subnet, settings->gateway_offset, settings->last_offset));
	insist(network_settings_decode(encoded, &decoded));
	insist(!network_settings_compare(settings, &decoded, keys));
}

static void insist_reservation(
	const struct config_network *network, const struct config_reservation *reservation)
{
	const struct network_settings *settings = &network->settings;
	uint32_t offset =
		ntohl(reservation->address.s_addr) - ntohl(settings->subnet.address.s_addr);

	insist(reservation->has_address || *reservation->name);
	insist(!*reservation->name || hostname_is_valid(reservation->name));
	insist(reservation->by_interface_id || mac_is_unicast(reservation->mac));
	if (!reservation->has_address)
		return;
	insist(settings->has_subnet);
	insist(ipv4_subnet_contains(settings->subnet, reservation->address));
	insist(offset != 0 && offset != (settings->gateway_offset ? settings->gateway_offset : 1));
	insist(offset != ipv4_subnet_size(settings->subnet) - 1);
}

static void insist_unique(const struct config_network *network, size_t index)
{
	const struct config_reservation *one = &network->reservations[index];

	for (size_t i = 0; i < index; i++) {
		const struct config_reservation *other = &network->reservations[i];

		insist(!one->has_address || !other->has_address ||
			one->address.s_addr != other->address.s_addr);
		insist(!*one->name || strcasecmp(one->name, other->name) != 0);
	}
}

static void insist_network(const struct config_network *network)
{
	insist(network_name_is_valid(network->name));
	insist(network->further_errors_count < CONFIG_ERRORS_MAX);
	insist(*network->error || network->further_errors_count == 0);
	if (*network->error)
		return;
	insist_settings(&network->settings);
	for (size_t i = 0; i < network->reservations_count; i++) {
		insist_reservation(network, &network->reservations[i]);
		insist_unique(network, i);
	}
}

static void insist_apart(const struct config *config)
{
	for (size_t i = 0; i < config->networks_count; i++)
		for (size_t j = 0; j < i; j++) {
			const struct config_network *a = &config->networks[i];
			const struct config_network *b = &config->networks[j];

			insist(strcmp(a->name, b->name) != 0);
			insist(*a->error || *b->error || !a->settings.has_subnet ||
				!b->settings.has_subnet ||
				!ipv4_subnets_overlap(a->settings.subnet, b->settings.subnet));
		}
}

static void count_mistake(void *context, const char *network, const char *mistake)
{
	insist(*mistake && strlen(mistake) < CONFIG_ERROR_SIZE);
	++*(size_t *)context;
}

/* As name resolution does, with numbers out of the air. */
static void resolve(struct config *config)
{
	struct config_names names = {0};
	struct config_principal *principal;
	enum config_name_kind kind;
	const struct config_network *network;

	while ((principal = config_next_name(config, &names, &kind, &network))) {
		insist(*principal->name && kind < CONFIG_NAME_KIND_COUNT && network->name[0]);
		principal->is_known = true;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Large, and never larger than this in the broker. */
	static struct config config;
	size_t mistakes = 0, networks_with_mistakes = 0;

	config_init(&config);
	config_parse(&config, "networks.json", (const char *)data, size);
	config_check_overlaps(&config);
	insist(config.networks_count >= 2 && config.networks_count <= CONFIG_NETWORKS_MAX);
	insist(config.broken_count <= CONFIG_BROKEN_MAX);
	for (size_t i = 0; i < config.networks_count; i++) {
		insist_network(&config.networks[i]);
		networks_with_mistakes += *config.networks[i].error != '\0';
	}
	insist_apart(&config);
	config_visit_mistakes(&config, count_mistake, &mistakes);
	insist(mistakes >= networks_with_mistakes + config.broken_count);
	resolve(&config);
	config_done(&config);
	return 0;
}
