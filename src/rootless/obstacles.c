#include "rootless/obstacles.h"

#include "base/cleanup.h"
#include "base/programs.h"
#include "rootless/pasta.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define TUN_DEVICE "/dev/net/tun"
/* The package's profile that allows them, and where it waits to be put to use; "vmnet-broker" alone
 * is that of the system's. */
#define PROFILE         "/etc/apparmor.d/vmnet-broker-rootless"
#define PROFILE_EXAMPLE "/usr/share/doc/vmnet-broker/examples/vmnet-broker-rootless"
#define PROFILE_PROGRAM "/usr/libexec/vmnet-broker"
#define TEXT_SIZE       1024
#define MEND_SIZE       (PATH_MAX + 512)
/* Below it ports are root's; Linux' own value is 1024. */
#define WEB_PORT 80

struct report {
	const char *program; /* NULL: this one */
	obstacle_found *found;
	void *context;
	bool has_vital;
};

/* The first number of a file; -1: there is none, or no such file. */
static long read_number(const char *path)
{
	cleanup_file FILE *file = fopen(path, "re");
	long number;

	return file && fscanf(file, "%ld", &number) == 1 ? number : -1;
}

/* mend comes formatted, the text is a format. */
__attribute__((format(printf, 5, 6))) static void tell(struct report *report,
	enum obstacle_grade grade, const char *problem, const char *mend, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	report->has_vital = report->has_vital || grade == OBSTACLE_VITAL;
	report->found(report->context, &(struct obstacle){grade, problem, text, mend});
}

/* --- user namespaces --- */

static void look_at_switches(struct report *report)
{
	static const struct {
		const char *path, *text, *mend;
	} switches[] = {
		{"/proc/sys/kernel/unprivileged_userns_clone",
			"ordinary users may not make user namespaces "
			"(kernel.unprivileged_userns_clone is 0)",
			"sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/user/max_user_namespaces",
			"nobody may make user namespaces (user.max_user_namespaces is 0)",
			"sysctl user.max_user_namespaces=15000"},
		{"/proc/sys/user/max_net_namespaces",
			"nobody may make network namespaces (user.max_net_namespaces is 0)",
			"sysctl user.max_net_namespaces=15000"},
	};

	for (size_t i = 0; i < array_length(switches); i++)
		if (read_number(switches[i].path) == 0)
			tell(report, OBSTACLE_VITAL, "userns-off", switches[i].mend, "%s",
				switches[i].text);
}

/* A profile that says so leaves a program's label other than "unconfined". */
static bool has_own_profile(void)
{
	cleanup_file FILE *file = fopen("/proc/self/attr/apparmor/current", "re");
	char label[128] = "";

	return file && fgets(label, sizeof(label), file) &&
	       strncmp(label, "unconfined", strlen("unconfined")) != 0 &&
	       !strstr(label, "unprivileged_userns");
}

/* Where the package's is not there, or is for another place, one that says the same of the program
 * that is. */
static void make_profile_mend(const char *program, char mend[MEND_SIZE])
{
	static const char load[] = "apparmor_parser --replace " PROFILE;
	char own[PATH_MAX] = "";

	if (!program && readlink("/proc/self/exe", own, sizeof(own) - 1) > 0)
		program = own;
	if (access(PROFILE, F_OK) == 0)
		snprintf(mend, MEND_SIZE, "%s", load);
	else if (access(PROFILE_EXAMPLE, F_OK) == 0 && program &&
		 strcmp(program, PROFILE_PROGRAM) == 0)
		snprintf(mend, MEND_SIZE, "cp " PROFILE_EXAMPLE " /etc/apparmor.d/ && %s", load);
	else
		snprintf(mend, MEND_SIZE,
			"printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile "
			"vmnet-broker-rootless %s flags=(unconfined) {\\n  userns,\\n}\\n' "
			">" PROFILE " && %s",
			program ? program : PROFILE_PROGRAM, load);
}

/* Which profiles are loaded only root may see, so that of another program its file has to do. */
static void look_at_apparmor(struct report *report)
{
	char mend[MEND_SIZE];

	if (read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != 1 ||
		(report->program ? access(PROFILE, F_OK) == 0 : has_own_profile()))
		return;
	make_profile_mend(report->program, mend);
	tell(report, OBSTACLE_VITAL, "userns-apparmor", mend,
		"AppArmor lets only programs with a profile use user namespaces "
		"(kernel.apparmor_restrict_unprivileged_userns is 1), and vmnet-broker has none");
}

/* A child tries; returns what unshare(2) said to it, negative errno. */
static int try_namespaces(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 ? errno : 0);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : 0;
}

/* What no file tells of: a container's filter, a chroot, a limit that is reached. */
static void look_at_kernel(struct report *report)
{
	int error = report->program && !report->has_vital ? try_namespaces() : 0;

	if (error == -ENOSPC)
		tell(report, OBSTACLE_VITAL, "userns-refused",
			"sysctl user.max_user_namespaces=15000 user.max_net_namespaces=15000",
			"as many user or network namespaces as may be are there already");
	else if (error)
		tell(report, OBSTACLE_VITAL, "userns-refused",
			"start the container with --security-opt seccomp=unconfined, or leave the "
			"chroot",
			"the kernel refuses this user a user namespace (%s), as containers and "
			"chroots have it do; entries in /etc/subuid are not needed",
			strerror(-error));
}

/* --- devices and programs --- */

static void look_at_tun(struct report *report)
{
	cleanup_fd int fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int error = fd < 0 ? errno : 0;

	if (error == EACCES)
		tell(report, OBSTACLE_VITAL, "no-tun", "chmod 0666 " TUN_DEVICE,
			TUN_DEVICE " is not open to this user");
	else if (error == EPERM)
		tell(report, OBSTACLE_VITAL, "no-tun",
			"start the container with --device " TUN_DEVICE,
			"this container keeps its programs from " TUN_DEVICE);
	else if (error)
		tell(report, OBSTACLE_VITAL, "no-tun", "modprobe tun",
			"there is no " TUN_DEVICE
			" (%s); containers have one when they are started with "
			"--device " TUN_DEVICE,
			strerror(error));
}

static void look_at_dnsmasq(struct report *report)
{
	if (!program_find_dnsmasq())
		tell(report, OBSTACLE_VITAL, "no-dnsmasq", "apt install dnsmasq-base",
			"dnsmasq is not installed, which networks have DHCP and DNS from");
}

static void look_at_pasta(struct report *report)
{
	const char *program = pasta_find_program();
	const char *option = program ? pasta_find_missing_option(program) : NULL;

	if (!program)
		tell(report, OBSTACLE_PART, "no-pasta", "apt install passt",
			"pasta is not installed, so VMs reach each other and not the world");
	else if (option)
		tell(report, OBSTACLE_PART, "old-pasta",
			"apt install passt, or a newer one from https://passt.top",
			"%s is too old: it does not know --%s, so VMs reach each other and not the "
			"world",
			program, option);
}

/* --- what else the host's settings forbid --- */

/* Only the world notices: VMs ping each other without it. */
static void look_at_ping(struct report *report)
{
	cleanup_file FILE *file = fopen("/proc/sys/net/ipv4/ping_group_range", "re");
	unsigned long first, last;

	if (!file || fscanf(file, "%lu %lu", &first, &last) != 2 ||
		(first <= getegid() && getegid() <= last))
		return;
	tell(report, OBSTACLE_PART, "ping-range", "sysctl net.ipv4.ping_group_range='0 2147483647'",
		"VMs cannot ping the world: this user's group %u is not in "
		"net.ipv4.ping_group_range",
		(unsigned int)getegid());
}

static void look_at_ports(struct report *report)
{
	long first = read_number("/proc/sys/net/ipv4/ip_unprivileged_port_start");

	if (first <= WEB_PORT)
		return;
	tell(report, OBSTACLE_NOTE, "low-ports", "sysctl net.ipv4.ip_unprivileged_port_start=80",
		"forwards of ordinary users begin at port %ld "
		"(net.ipv4.ip_unprivileged_port_start)",
		first);
}

void obstacles_list(const char *program, obstacle_found *found, void *context)
{
	struct report report = {.program = program, .found = found, .context = context};
	bool is_root = geteuid() == 0;

	if (!is_root) {
		look_at_switches(&report);
		look_at_apparmor(&report);
		look_at_kernel(&report);
	}
	look_at_tun(&report);
	look_at_dnsmasq(&report);
	if (is_root)
		return;
	look_at_pasta(&report);
	look_at_ping(&report);
	look_at_ports(&report);
}
