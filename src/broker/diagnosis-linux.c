/* What of a Linux host keeps VMs from the network, and what mends it. */
#include "broker/linux.h"

#include "rootless/obstacles.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdarg.h>
#include <string.h>

#define TEXT_SIZE 512
/* As priv has it, too: wider routes than any private range are halves of a default route. */
#define WIDE_PREFIX_LENGTH 8
#define DNS_PORT           53

struct look {
	struct platform *platform;
	bool has_networks;
	platform_problem_found *found;
	void (*accept)(void *context, const char *rule);
	void *context;
	unsigned int uplinks;
	/* The chain that lines about rules are of, and whether one was seen. */
	char family[8], table[64], chain[64], hook[16];
	bool is_open, has_rule;
};

/* mend comes formatted, the text is a format. */
static void tell(struct look *look, const char *problem, const char *mend, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void tell(struct look *look, const char *problem, const char *mend, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	look->found(look->context,
		&(struct platform_problem){.problem = problem, .text = text, .mend = mend});
}

/* Called when the next chain begins, and behind the last one. */
static void end_chain(struct look *look)
{
	char mend[TEXT_SIZE];

	if (!look->is_open || look->has_rule || !look->has_networks)
		return;
	snprintf(mend, sizeof(mend), "nft insert rule %s %s %s iifname 'vmbr*' accept",
		look->family, look->table, look->chain);
	tell(look, "firewall-drops", mend,
		"chain %s of the firewall's table %s %s drops what comes from VMs, and takes no "
		"accept of ours: another program keeps that table to itself",
		look->chain, look->family, look->table);
}

static void take_chain(struct look *look, const char *line)
{
	char state[16], mend[TEXT_SIZE];

	end_chain(look);
	look->has_rule = false;
	look->is_open = false;
	if (sscanf(line, "chain %7s %15s %63s %63s %15s", look->family, look->hook, look->table,
		    look->chain, state) != 5)
		return;
	look->is_open = strcmp(state, "open") == 0;
	if (strcmp(state, "drop") != 0)
		return;
	snprintf(mend, sizeof(mend), "nft insert rule %s %s %s oifname 'vmbr*' accept",
		look->family, look->table, look->chain);
	tell(look, "output-drops", mend,
		"chain %s of the firewall's table %s %s drops what the host itself sends, so VMs "
		"get no answer of DHCP and DNS",
		look->chain, look->family, look->table);
}

static void take_rule(struct look *look, const char *line)
{
	char family[8], table[64], chain[64], bridge[IFNAMSIZ], what[16], rule[TEXT_SIZE];

	if (sscanf(line, "rule %7s %63s %63s vmnet/1/%*8s %15s %15s", family, table, chain, bridge,
		    what) != 5)
		return;
	look->has_rule = true;
	snprintf(rule, sizeof(rule), "%s %s %s: %s %s", family, table, chain, bridge, what);
	look->accept(look->context, rule);
}

static void take_legacy(struct look *look, const char *line)
{
	char family[8], table[64], mend[TEXT_SIZE];
	const char *program;

	if (sscanf(line, "legacy %7s %63s", family, table) != 2 || strcmp(table, "filter") != 0)
		return;
	program = strcmp(family, "ip") == 0 ? "iptables-legacy" : "ip6tables-legacy";
	snprintf(mend, sizeof(mend),
		"for hook in 'INPUT -i' 'FORWARD -i' 'FORWARD -o'; do %s -I $hook vmbr+ -j ACCEPT; "
		"done",
		program);
	tell(look, "legacy-firewall", mend,
		"the old iptables has a filter table, which is not seen from nftables: if it drops "
		"what VMs send, or ask DHCP and DNS, accept that there (%s -S shows it)",
		program);
}

static void take_line(struct look *look, const char *line)
{
	static const struct {
		const char *word;
		void (*take)(struct look *look, const char *line);
	} kinds[] = {{"chain ", take_chain}, {"rule ", take_rule}, {"legacy ", take_legacy}};

	for (size_t i = 0; i < array_length(kinds); i++)
		if (strncmp(line, kinds[i].word, strlen(kinds[i].word)) == 0)
			kinds[i].take(look, line);
}

static int look_at_firewalls(struct look *look)
{
	struct verb_request request = {.verb = VERB_REPORT_FIREWALLS};
	cleanup_file FILE *report = NULL;
	cleanup_fds struct fd_list fds;
	char line[TEXT_SIZE];
	cleanup_fd int fd = -1;
	int error;

	fd_list_init(&fds);
	error = linux_call(look->platform, &request, NULL, 0, NULL, &fds, NULL);
	if (error)
		return error;
	fd = fd_list_take(&fds, 0);
	report = fd < 0 ? NULL : fdopen(fd, "r");
	if (!report)
		return -EPROTO;
	take_fd(&fd);
	rewind(report);
	while (fgets(line, sizeof(line), report))
		take_line(look, line);
	end_chain(look);
	return 0;
}

static bool is_switched_off(const char *interface_name)
{
	char path[96];
	cleanup_file FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/forwarding", interface_name);
	file = fopen(path, "re");
	return file && fgetc(file) == '0';
}

static int take_route(struct nl_msg *message, void *context)
{
	const struct rtmsg *header = nlmsg_data(nlmsg_hdr(message));
	struct nlattr *attributes[RTA_MAX + 1];
	struct look *look = context;
	char name[IFNAMSIZ], mend[TEXT_SIZE];

	if (nlmsg_parse(nlmsg_hdr(message), sizeof(*header), attributes, RTA_MAX, NULL) < 0 ||
		header->rtm_dst_len >= WIDE_PREFIX_LENGTH || header->rtm_type != RTN_UNICAST ||
		header->rtm_table == RT_TABLE_LOCAL)
		return NL_OK;
	look->uplinks++;
	/* pasta needs no forwarding of the host's. */
	if (look->platform->is_rootless)
		return NL_OK;
	if (!attributes[RTA_OIF] || !if_indextoname(nla_get_u32(attributes[RTA_OIF]), name) ||
		!look->has_networks || !is_switched_off(name))
		return NL_OK;
	snprintf(mend, sizeof(mend), "sysctl net.ipv4.conf.%s.forwarding=1", name);
	tell(look, "forwarding-off", mend,
		"answers of the world to VMs come in by %s, on which forwarding was turned off",
		name);
	return NL_OK;
}

static int look_at_routes(struct look *look)
{
	struct rtmsg header = {.rtm_family = AF_INET};
	int error = linux_dump(NULL, RTM_GETROUTE, &header, sizeof(header), take_route, look);

	if (!error && look->uplinks == 0)
		tell(look, "no-route", "ip route add default via ROUTER",
			"the host has no default route, so VMs reach the host and each other only; "
			"they reach the world as soon as the host does");
	return error;
}

/* Not DHCP's port: every server of it takes that on all addresses, of one interface each. */
static void look_at_ports(struct look *look)
{
	char holder[PLATFORM_DETAIL_SIZE];

	if (!platform_find_port_holder(look->platform, DNS_PORT, holder))
		return;
	tell(look, "port-taken",
		strncmp(holder, "dnsmasq ", strlen("dnsmasq ")) == 0
			? "echo bind-interfaces >/etc/dnsmasq.d/vmnet.conf && systemctl restart "
			  "dnsmasq"
			: "have it listen on addresses of its own, or set \"dns\": false for the "
			  "network in networks.json",
		"port %d of every address is taken by %s, so that no network can have DNS",
		DNS_PORT, holder);
}

static void look_at_firewalld(struct look *look)
{
	static const char no_zone[] = "INVALID_ZONE";
	const char *problem = firewalld_problem(look->platform->firewalld);

	if (!*problem)
		return;
	if (strncmp(problem, no_zone, strlen(no_zone)) == 0)
		tell(look, "firewalld-zone", "firewall-cmd --reload",
			"firewalld does not know the zone vmnet yet, so bridges are in its zone "
			"trusted, and VMs reach every service of the host");
	else
		tell(look, "firewalld-refuses",
			"for bridge in $(ip -br link show type bridge | grep -o '^vmbr[0-9a-f]*'); "
			"do "
			"firewall-cmd --zone=trusted --add-interface=$bridge; done",
			"firewalld does not let the bridges through: %s", problem);
}

/* Only a file that says so: what else may be wrong with names is not the network's. */
static void look_at_resolvers(struct look *look)
{
	cleanup_file FILE *file = fopen("/etc/resolv.conf", "re");
	char line[TEXT_SIZE];

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "nameserver", strlen("nameserver")) == 0)
			return;
	tell(look, "no-resolver", "resolvectl dns",
		"/etc/resolv.conf names no DNS server, so VMs know names of their own network "
		"only; "
		"they know others as soon as the host does");
}

static void take_obstacle(void *context, const struct obstacle *obstacle)
{
	const struct look *look = context;

	look->found(look->context, &(struct platform_problem){
					   .problem = obstacle->problem,
					   .text = obstacle->text,
					   .mend = obstacle->mend,
					   .is_note = obstacle->grade == OBSTACLE_NOTE,
				   });
}

int platform_find_problems(struct platform *platform, bool has_networks,
	platform_problem_found *found, void (*accept)(void *context, const char *rule),
	void *context)
{
	struct look look = {
		.platform = platform,
		.has_networks = has_networks,
		.found = found,
		.accept = accept,
		.context = context,
	};
	int error;

	if (platform->is_rootless) {
		obstacles_list(NULL, take_obstacle, &look);
		return look_at_routes(&look);
	}
	error = look_at_firewalls(&look);
	if (!error)
		error = look_at_routes(&look);
	look_at_ports(&look);
	look_at_firewalld(&look);
	look_at_resolvers(&look);
	return error;
}
