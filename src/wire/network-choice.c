#include "wire/network-choice.h"

#include "wire/parameters.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

bool network_choice_has_range(const struct network_choice *choice)
{
	return choice->range.start.s_addr || choice->range.end.s_addr || choice->range.mask.s_addr;
}

static int set_address(json_t *parameters, const char *key, struct in_addr address)
{
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &address, text, sizeof(text));
	return json_object_set_new(parameters, key, json_string(text));
}

static int set_range(json_t *parameters, const struct address_range *range)
{
	if (set_address(parameters, "startAddress", range->start) < 0 ||
		set_address(parameters, "endAddress", range->end) < 0)
		return -1;
	return set_address(parameters, "subnetMask", range->mask);
}

int network_choice_encode(const struct network_choice *choice, json_t *parameters)
{
	if (member_set_text(parameters, "network", choice->network) < 0 ||
		member_set_text(parameters, "mode", choice->mode) < 0 ||
		member_set_text(parameters, "sharedInterface", choice->shared_interface) < 0)
		return -1;
	return network_choice_has_range(choice) ? set_range(parameters, &choice->range) : 0;
}

const char *network_choice_decode_network(json_t *value, void *choice)
{
	return parameter_decode_network_name(value, ((struct network_choice *)choice)->network);
}

const char *network_choice_decode_mode(json_t *value, void *choice)
{
	const char *mode = parameter_text_or_empty(value);

	if (strcmp(mode, "shared") != 0 && strcmp(mode, "host") != 0 &&
		strcmp(mode, "bridged") != 0)
		return "must be one of shared, host, bridged";
	text_copy(((struct network_choice *)choice)->mode, NETWORK_MODE_TEXT_SIZE, mode);
	return NULL;
}

static const char *decode_address(json_t *value, struct in_addr *ret_address)
{
	return text_to_ipv4(parameter_text_or_empty(value), ret_address) == 0 && ret_address->s_addr
		       ? NULL
		       : "must be an IPv4 address such as \"192.168.200.1\"";
}

const char *network_choice_decode_start(json_t *value, void *choice)
{
	return decode_address(value, &((struct network_choice *)choice)->range.start);
}

const char *network_choice_decode_end(json_t *value, void *choice)
{
	return decode_address(value, &((struct network_choice *)choice)->range.end);
}

const char *network_choice_decode_mask(json_t *value, void *choice)
{
	return decode_address(value, &((struct network_choice *)choice)->range.mask);
}

const char *network_choice_decode_shared_interface(json_t *value, void *choice)
{
	const char *name = parameter_text_or_empty(value);

	if (!*name ||
		text_copy(((struct network_choice *)choice)->shared_interface, IFNAMSIZ, name) < 0)
		return "must be the name of an interface of the host";
	return NULL;
}

static const char *check_range(const struct network_choice *choice)
{
	const struct address_range *range = &choice->range;
	struct address_layout ignored;

	if (!range->start.s_addr || !range->end.s_addr || !range->mask.s_addr)
		return "parameters startAddress, endAddress and subnetMask go together";
	return address_range_resolve(range, &ignored);
}

const char *network_choice_check(const struct network_choice *choice)
{
	bool is_bridged = strcmp(choice->mode, "bridged") == 0;
	bool has_range = network_choice_has_range(choice);

	if (!*choice->network && !*choice->mode)
		return "parameter \"network\" is missing; \"mode\" can stand for it";
	if (*choice->network && (*choice->mode || has_range || *choice->shared_interface))
		return "parameter network excludes mode, startAddress, endAddress, subnetMask and "
		       "sharedInterface";
	if (is_bridged != (*choice->shared_interface != '\0'))
		return "parameter sharedInterface and mode bridged need one another";
	if (is_bridged && has_range)
		return "parameters startAddress, endAddress and subnetMask need mode shared or "
		       "host";
	return has_range ? check_range(choice) : NULL;
}
