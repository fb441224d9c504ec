#include "rootless/obstacles.h"

#include "base/cleanup.h"
#include "rootless/pasta.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TUN_DEVICE "/dev/net/tun"
#define TEXT_SIZE  512

struct report {
	obstacle_found *found;
	void *context;
};

/* The first number of a file; -1: there is none, or no such file. */
static long read_number(const char *path)
{
	cleanup_file FILE *file = fopen(path, "re");
	long number;

	return file && fscanf(file, "%ld", &number) == 1 ? number : -1;
}

static void tell(
	const struct report *report, const char *problem, const char *text, const char *mend)
{
	report->found(report->context, problem, text, mend);
}

/* Our own profile has a name; who has none is held by the restriction. */
static bool is_restricted_by_apparmor(void)
{
	cleanup_file FILE *file = fopen("/proc/self/attr/apparmor/current", "re");
	char label[128] = "";

	if (read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != 1)
		return false;
	return !file || !fgets(label, sizeof(label), file) ||
	       strncmp(label, "unconfined", strlen("unconfined")) == 0 ||
	       strstr(label, "unprivileged_userns");
}

static void look_at_user_namespaces(const struct report *report)
{
	if (read_number("/proc/sys/kernel/unprivileged_userns_clone") == 0)
		tell(report, "userns-off",
			"ordinary users may not make user namespaces "
			"(kernel.unprivileged_userns_clone is 0)",
			"sysctl kernel.unprivileged_userns_clone=1");
	if (read_number("/proc/sys/user/max_user_namespaces") == 0)
		tell(report, "userns-off",
			"nobody may make user namespaces (user.max_user_namespaces is 0)",
			"sysctl user.max_user_namespaces=15000");
	if (is_restricted_by_apparmor())
		tell(report, "userns-apparmor",
			"AppArmor lets only programs with a profile use user namespaces "
			"(kernel.apparmor_restrict_unprivileged_userns is 1), and vmnet-broker has "
			"none",
			"apparmor_parser --replace /etc/apparmor.d/vmnet-broker");
}

static void look_at_tun(const struct report *report)
{
	struct stat status;

	if (stat(TUN_DEVICE, &status) < 0)
		tell(report, "no-tun", "there is no " TUN_DEVICE, "modprobe tun");
	else if (access(TUN_DEVICE, R_OK | W_OK) < 0)
		tell(report, "no-tun", TUN_DEVICE " is not open to this user",
			"chmod 0666 " TUN_DEVICE);
}

static void look_at_programs(const struct report *report)
{
	if (!pasta_find_program())
		tell(report, "no-pasta",
			"pasta is not installed, so VMs reach each other and not the world",
			"apt install passt");
}

/* Only the world notices: VMs ping each other without it. */
static void look_at_ping(const struct report *report)
{
	cleanup_file FILE *file = fopen("/proc/sys/net/ipv4/ping_group_range", "re");
	unsigned long first, last;
	char text[TEXT_SIZE];

	if (!file || fscanf(file, "%lu %lu", &first, &last) != 2 ||
		(first <= getegid() && getegid() <= last))
		return;
	snprintf(text, sizeof(text),
		"VMs cannot ping the world: this user's group %u is not in "
		"net.ipv4.ping_group_range",
		(unsigned int)getegid());
	tell(report, "ping-range", text, "sysctl net.ipv4.ping_group_range='0 2147483647'");
}

void obstacles_list(obstacle_found *found, void *context)
{
	const struct report report = {found, context};

	look_at_user_namespaces(&report);
	look_at_tun(&report);
	look_at_programs(&report);
	look_at_ping(&report);
}
