/*
 * What a network is when it runs: what its configuration, or the first user of an ad-hoc network,
 * asked for. Fixed while it runs and kept in its record, so that a changed configuration changes
 * nothing under running VMs.
 */
#pragma once

#include "priv/names.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define SETTINGS_LEASE_DEFAULT_S 600 /* a VM that went frees its address soon */
#define SETTINGS_LEASE_MIN_S     120 /* dnsmasq takes no less */
#define SETTINGS_LEASE_MAX_S     86400
#define SETTINGS_MTU_DEFAULT     1500 /* what every uplink carries */

/* All keys of the configuration that settings follow from, with commas. */
#define SETTINGS_DIFFERENCES_SIZE 160

struct network_settings {
	enum network_mode mode;
	/* Without one the broker chooses, and remembers. */
	bool has_subnet;
	struct ipv4_subnet subnet;
	/* Offsets from the subnet's base address; the gateway is at the first, VMs behind it up to
	   the last. 0: the first host, and the last one. */
	uint32_t gateway_offset;
	uint32_t last_offset;
	bool ipv6;
	/* A ULA /64; without one it follows from instance and name. */
	bool has_ipv6_prefix;
	struct in6_addr ipv6_prefix;
	uint32_t mtu; /* bytes */
	bool dhcp, dns, router_advertisement;
	uint32_t lease_s;
	char domain[NETWORK_DOMAIN_SIZE]; /* empty: NETWORK.vmnet */
	bool isolation;                   /* every interface is isolated */
	bool lock_mac; /* every interface sends from its own MAC and IPv4 address only */
	/* Shared: the only link to the world, empty for any. Bridged: the link VMs are put on. */
	char uplink[IFNAMSIZ];
};

/* Once, before any configuration is read: another MTU than SETTINGS_MTU_DEFAULT for networks that
 * say none. */
void network_settings_set_default_mtu(uint32_t mtu);

/* Mode, and the defaults for everything else. */
void network_settings_init(struct network_settings *settings, enum network_mode mode);

/* As the record of a network keeps it. A new reference; NULL when memory is out. */
json_t *network_settings_encode(const struct network_settings *settings);

/* False for what network_settings_encode() would not have written. */
bool network_settings_decode(const json_t *object, struct network_settings *ret_settings);

/*
 * Whether two settings differ; the keys of the configuration by which they do go into keys
 * (SETTINGS_DIFFERENCES_SIZE bytes).
 */
bool network_settings_compare(
	const struct network_settings *a, const struct network_settings *b, char *keys);
