#include "wire/startline.h"

#include "base/cleanup.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <net/ethernet.h>
#include <stdio.h>

#define IPV6_PREFIX_LENGTH 64

static json_t *encode_address(struct in_addr address)
{
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &address, text, sizeof(text));
	return json_string(text);
}

static json_t *encode_interface(const struct startline *line)
{
	char mac[MAC_TEXT_SIZE];
	char interface_id[UUID_TEXT_SIZE];

	mac_to_text(line->mac, mac);
	uuid_to_text(line->interface_id, interface_id);
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "vmnet_mac_address", mac,
		"vmnet_interface_id", interface_id, "vmnet_max_packet_size",
		(json_int_t)(line->max_packet_size ? line->max_packet_size : line->mtu + ETH_HLEN),
		"vmnet_mtu", (json_int_t)line->mtu, "vmnet_read_max_packets",
		(json_int_t)line->read_max_packets, "vmnet_write_max_packets",
		(json_int_t)line->write_max_packets);
}

static json_t *encode_addresses(const struct startline *line)
{
	struct in_addr end = line->end_address;

	/* Of mode bridged: the LAN has its own. */
	if (line->subnet.prefix_length == 0)
		return json_object();
	/* "subnet" holds the gateway's address, as the original prints it. */
	if (line->network_was_named)
		return json_pack("{s:o, s:o}", "net_ipv4_subnet", encode_address(line->gateway),
			"net_ipv4_mask", encode_address(ipv4_subnet_mask(line->subnet)));
	if (end.s_addr == 0)
		end = ipv4_subnet_host(line->subnet, ipv4_subnet_size(line->subnet) - 2);
	return json_pack("{s:o, s:o, s:o}", "vmnet_start_address", encode_address(line->gateway),
		"vmnet_end_address", encode_address(end), "vmnet_subnet_mask",
		encode_address(ipv4_subnet_mask(line->subnet)));
}

static json_t *encode_ipv6(const struct startline *line)
{
	char prefix[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, &line->ipv6_prefix, prefix, sizeof(prefix));
	if (line->has_ipv6 && line->network_was_named)
		return json_pack("{s:s, s:i}", "net_ipv6_prefix", prefix, "net_ipv6_prefix_len",
			IPV6_PREFIX_LENGTH);
	if (line->has_ipv6 && line->is_shared)
		return json_pack("{s:s}", "vmnet_nat66_prefix", prefix);
	return json_object();
}

static json_t *encode_own(const struct startline *line)
{
	json_t *object = json_pack("{s:s, s:s}", "vmnet_interface_name", line->interface_name,
		"vmnet_network", line->network);

	if (object && line->address.s_addr)
		json_object_set_new(object, "vmnet_ipv4_address", encode_address(line->address));
	return object;
}

int startline_to_text(const struct startline *line, char **ret_text)
{
	cleanup_json json_t *object = encode_interface(line);
	cleanup_json json_t *addresses = encode_addresses(line);
	cleanup_json json_t *ipv6 = encode_ipv6(line);
	cleanup_json json_t *own = encode_own(line);
	cleanup_free char *json = NULL;
	char *text;

	if (!object || !addresses || !ipv6 || !own)
		return -EINVAL;
	if (json_object_update(object, addresses) < 0 || json_object_update(object, ipv6) < 0 ||
		json_object_update(object, own) < 0)
		return -ENOMEM;
	json = json_dumps(object, JSON_COMPACT);
	if (!json || asprintf(&text, "%s\n", json) < 0)
		return -ENOMEM;
	*ret_text = text;
	return 0;
}
