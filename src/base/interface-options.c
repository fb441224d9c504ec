#include "base/interface-options.h"

#include "base/address-range.h"
#include "base/cleanup.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>

static int refuse(char *error, const char *text)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "%s", text);
	return -EINVAL;
}

static int parse_network(void *context, const char *argument, char *error)
{
	struct interface_options *options = context;

	if (!network_name_is_valid(argument))
		return refuse(error, "1 to 32 letters, digits, \".\", \"-\", \"_\", the first a "
				     "letter or digit");
	options->network = argument;
	return 0;
}

static int parse_operation_mode(void *context, const char *argument, char *error)
{
	struct interface_options *options = context;

	if (strcmp(argument, "shared") != 0 && strcmp(argument, "host") != 0 &&
		strcmp(argument, "bridged") != 0)
		return refuse(error, "one of shared, host, bridged");
	options->operation_mode = argument;
	return 0;
}

static int parse_shared_interface(void *context, const char *argument, char *error)
{
	struct interface_options *options = context;

	if (!*argument || strlen(argument) >= IFNAMSIZ)
		return refuse(error, "the name of an interface of the host is needed; "
				     "vmnet-helper --list-shared-interfaces lists those allowed");
	options->shared_interface = argument;
	return 0;
}

static int parse_address(const char *argument, const char **ret_address, char *error)
{
	struct in_addr address;

	if (text_to_ipv4(argument, &address) < 0)
		return refuse(error, "an IPv4 address such as 192.168.200.1 is needed");
	*ret_address = argument;
	return 0;
}

static int parse_start_address(void *context, const char *argument, char *error)
{
	return parse_address(
		argument, &((struct interface_options *)context)->start_address, error);
}

static int parse_end_address(void *context, const char *argument, char *error)
{
	return parse_address(argument, &((struct interface_options *)context)->end_address, error);
}

static int parse_subnet_mask(void *context, const char *argument, char *error)
{
	return parse_address(argument, &((struct interface_options *)context)->subnet_mask, error);
}

static int parse_interface_id(void *context, const char *argument, char *error)
{
	struct interface_options *options = context;

	if (text_to_uuid(argument, &options->interface_id) < 0)
		return refuse(error, "a UUID is needed; uuidgen makes one");
	options->has_interface_id = true;
	return 0;
}

static int parse_mac(void *context, const char *argument, char *error)
{
	struct interface_options *options = context;

	if (text_to_mac(argument, &options->mac) < 0)
		return refuse(error, "a MAC address such as 52:54:00:12:34:56 is needed");
	if (!mac_is_unicast(options->mac))
		return refuse(error, "a VM's MAC address is neither multicast nor all zero; make "
				     "its first byte even, such as 52");
	options->has_mac = true;
	return 0;
}

static int parse_hostname(void *context, const char *argument, char *error)
{
	struct interface_options *options = context;

	if (!hostname_is_valid(argument))
		return refuse(error, "1 to 63 letters, digits and inner hyphens");
	options->hostname = argument;
	return 0;
}

static int parse_isolation(void *context, const char *argument, char *error)
{
	((struct interface_options *)context)->isolation = true;
	return 0;
}

const struct option_entry interface_option_table[INTERFACE_OPTIONS_COUNT] = {
	{"network", 0, "NAME", "network to join, as the broker's configuration names it",
		parse_network},
	{"operation-mode", 0, "MODE", "without --network: shared (default), host or bridged",
		parse_operation_mode},
	{"shared-interface", 0, "NAME", "with bridged: the host's interface to put the VM on",
		parse_shared_interface},
	{"start-address", 0, "ADDRESS", "with shared or host: the host's own address, VMs follow",
		parse_start_address},
	{"end-address", 0, "ADDRESS", "the last address for VMs", parse_end_address},
	{"subnet-mask", 0, "MASK", "goes with --start-address and --end-address",
		parse_subnet_mask},
	{"interface-id", 'i', "UUID", "the same id gets the same MAC and IPv4 address again",
		parse_interface_id},
	{"mac", 0, "MAC", "the VM's MAC address", parse_mac},
	{"hostname", 0, "NAME", "the VM's name in the network's DNS", parse_hostname},
	{"enable-isolation", 0, NULL, "keep the VM from other isolated VMs", parse_isolation},
};

static bool is_bridged(const struct interface_options *options)
{
	return options->operation_mode && strcmp(options->operation_mode, "bridged") == 0;
}

static bool has_range(const struct interface_options *options)
{
	return options->start_address || options->end_address || options->subnet_mask;
}

static bool has_whole_range(const struct interface_options *options)
{
	return options->start_address && options->end_address && options->subnet_mask;
}

static bool names_network_and_mode(const struct interface_options *options)
{
	return options->network && options->operation_mode;
}

static bool names_network_and_interface(const struct interface_options *options)
{
	return options->network && options->shared_interface;
}

static bool names_network_and_range(const struct interface_options *options)
{
	return options->network && has_range(options);
}

static bool range_is_incomplete(const struct interface_options *options)
{
	return has_range(options) && !has_whole_range(options);
}

static bool range_is_bridged(const struct interface_options *options)
{
	return has_range(options) && is_bridged(options);
}

static bool bridged_lacks_interface(const struct interface_options *options)
{
	return is_bridged(options) && !options->shared_interface;
}

static bool interface_has_no_place(const struct interface_options *options)
{
	return options->shared_interface && !is_bridged(options);
}

static bool isolation_is_bridged(const struct interface_options *options)
{
	return options->isolation && is_bridged(options);
}

/* The first that holds is told. */
static const struct {
	bool (*holds)(const struct interface_options *options);
	const char *text;
} conflicts[] = {
	{names_network_and_mode, "options --network and --operation-mode exclude each other: a "
				 "network has its mode; leave one out"},
	{names_network_and_interface,
		"options --network and --shared-interface exclude each other: a network's "
		"configuration has its interface; leave one out"},
	{names_network_and_range,
		"options --network and --start-address, --end-address, --subnet-mask exclude each "
		"other: a network has its addresses; leave the one or the others out"},
	{range_is_incomplete, "options --start-address, --end-address and --subnet-mask go "
			      "together; give all three or none"},
	{range_is_bridged, "options --start-address, --end-address and --subnet-mask exclude "
			   "--operation-mode bridged: the LAN gives the addresses; leave them out"},
	{bridged_lacks_interface,
		"option --operation-mode bridged needs --shared-interface NAME; vmnet-helper "
		"--list-shared-interfaces lists those allowed"},
	{isolation_is_bridged, "option --enable-isolation excludes --operation-mode bridged: who "
			       "is on the LAN is not ours to say; leave it out"},
	{interface_has_no_place,
		"option --shared-interface needs --operation-mode bridged; add it, or leave "
		"--shared-interface out"},
};

static int check_range(const struct interface_options *options, char *error)
{
	struct address_range range;
	struct address_layout layout;
	const char *wrong;

	/* Each has been parsed before. */
	(void)text_to_ipv4(options->start_address, &range.start);
	(void)text_to_ipv4(options->end_address, &range.end);
	(void)text_to_ipv4(options->subnet_mask, &range.mask);
	wrong = address_range_resolve(&range, &layout);
	if (!wrong)
		return 0;
	snprintf(error, OPTIONS_ERROR_SIZE,
		"options --start-address %s, --end-address %s, --subnet-mask %s: %s",
		options->start_address, options->end_address, options->subnet_mask, wrong);
	return -EINVAL;
}

int interface_options_check(const struct interface_options *options, char *error)
{
	for (size_t i = 0; i < array_length(conflicts); i++)
		if (conflicts[i].holds(options))
			return refuse(error, conflicts[i].text);
	return has_range(options) ? check_range(options, error) : 0;
}

const char *interface_options_network(const struct interface_options *options)
{
	if (options->network)
		return options->network;
	return options->operation_mode ? options->operation_mode : "shared";
}
