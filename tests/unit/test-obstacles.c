/* What keeps an ordinary user from having networks; a directory plays the host. */

#include "base/cleanup.h"
#include "rootless/obstacles.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define PROFILE "/etc/apparmor.d/vmnet-broker-rootless"
#define EXAMPLE "/usr/share/doc/vmnet-broker/examples/vmnet-broker-rootless"
#define BROKER  "/opt/vmnet/libexec/vmnet-broker"

static char place[] = "/tmp/vmnet-obstacles-XXXXXX";
static uid_t uid = 1000;
static int unshare_error, tun_error;

/* --- the host --- */

/* meson.build has the program linked with these in the place of the C library's, which large files
 * have by other names. */
FILE *__real_fopen64(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_access(const char *path, int mode);
uid_t __wrap_geteuid(void);
gid_t __wrap_getegid(void);
int __wrap_unshare(int flags);

static const char *below_place(const char *path, char result[PATH_MAX])
{
	snprintf(result, PATH_MAX, "%s%s", place, path);
	return result;
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
	char below[PATH_MAX];

	return __real_fopen64(below_place(path, below), mode);
}

int __wrap_open64(const char *path, int flags, ...)
{
	char below[PATH_MAX];

	if (tun_error && strcmp(path, "/dev/net/tun") == 0) {
		errno = tun_error;
		return -1;
	}
	return __real_open64(below_place(path, below), flags);
}

int __wrap_access(const char *path, int mode)
{
	struct stat status;
	char below[PATH_MAX];

	return stat(below_place(path, below), &status);
}

uid_t __wrap_geteuid(void)
{
	return uid;
}

gid_t __wrap_getegid(void)
{
	return 1000;
}

int __wrap_unshare(int flags)
{
	errno = unshare_error;
	return unshare_error ? -1 : 0;
}

static void make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
		*slash = '/';
	}
}

static void put_bytes(const char *path, const char *bytes, size_t size)
{
	char below[PATH_MAX];
	cleanup_file FILE *file = NULL;

	make_parents((char *)(uintptr_t)below_place(path, below));
	file = __real_fopen64(below, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
}

static void put(const char *path, const char *text)
{
	put_bytes(path, text, strlen(text));
}

static void take_away(const char *path)
{
	char below[PATH_MAX];

	assert_true(unlink(below_place(path, below)) == 0 || errno == ENOENT);
}

static const char pasta_bytes[] =
	"\177ELF\0config-net\0ns-ifname\0dns-forward\0tcp-ports\0udp-ports\0tcp-ns\0udp-ns\0"
	"netns-only\0no-netns\0no-map-gw\0";

/* A host on which all is well. */
static int set_up(void **state)
{
	uid = 1000;
	unshare_error = 0;
	tun_error = 0;
	put("/proc/sys/kernel/unprivileged_userns_clone", "1\n");
	put("/proc/sys/user/max_user_namespaces", "96365\n");
	put("/proc/sys/user/max_net_namespaces", "96365\n");
	put("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0\n");
	put("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n");
	put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n");
	put("/proc/self/attr/apparmor/current", "unconfined\n");
	put("/dev/net/tun", "");
	put("/usr/sbin/dnsmasq", "");
	put_bytes("/usr/bin/pasta", pasta_bytes, sizeof(pasta_bytes));
	take_away("/usr/local/bin/pasta");
	take_away(PROFILE);
	take_away(EXAMPLE);
	return 0;
}

/* --- what is found --- */

struct found {
	char words[256]; /* "userns-off no-tun" */
	enum obstacle_grade grade;
	char text[1024], mend[PATH_MAX + 512]; /* of the first */
};

static void take(void *context, const struct obstacle *obstacle)
{
	struct found *found = context;
	size_t used = strlen(found->words);

	if (used == 0) {
		found->grade = obstacle->grade;
		snprintf(found->text, sizeof(found->text), "%s", obstacle->text);
		snprintf(found->mend, sizeof(found->mend), "%s", obstacle->mend);
	}
	snprintf(found->words + used, sizeof(found->words) - used, "%s%s", used > 0 ? " " : "",
		obstacle->problem);
}

static struct found look(const char *program)
{
	struct found found = {.words = ""};

	obstacles_list(program, take, &found);
	return found;
}

/* One thing is wrong, and both a broker and doctor say so. */
static void assert_found(
	const char *problem, enum obstacle_grade grade, const char *text, const char *mend)
{
	struct found found = look(NULL);

	assert_string_equal(found.words, problem);
	assert_int_equal(found.grade, grade);
	assert_non_null(strstr(found.text, text));
	assert_string_equal(found.mend, mend);
	assert_string_equal(look(BROKER).words, problem);
}

static void test_nothing(void **state)
{
	assert_string_equal(look(NULL).words, "");
	assert_string_equal(look(BROKER).words, "");
}

static void test_switches(void **state)
{
	put("/proc/sys/kernel/unprivileged_userns_clone", "0\n");
	assert_found("userns-off", OBSTACLE_VITAL, "kernel.unprivileged_userns_clone is 0",
		"sysctl kernel.unprivileged_userns_clone=1");
	/* Not every kernel has it. */
	take_away("/proc/sys/kernel/unprivileged_userns_clone");
	assert_string_equal(look(NULL).words, "");
	put("/proc/sys/user/max_user_namespaces", "0\n");
	assert_found("userns-off", OBSTACLE_VITAL, "user.max_user_namespaces is 0",
		"sysctl user.max_user_namespaces=15000");
	put("/proc/sys/user/max_user_namespaces", "1\n");
	put("/proc/sys/user/max_net_namespaces", "0\n");
	assert_found("userns-off", OBSTACLE_VITAL, "user.max_net_namespaces is 0",
		"sysctl user.max_net_namespaces=15000");
}

static void test_apparmor(void **state)
{
	put("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
	assert_string_equal(look(NULL).words, "userns-apparmor");
	/* Ours is not there: one is written for the program that is. */
	assert_string_equal(look(BROKER).words, "userns-apparmor");
	assert_string_equal(look(BROKER).mend,
		"printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile "
		"vmnet-broker-rootless " BROKER
		" flags=(unconfined) {\\n  userns,\\n}\\n' >" PROFILE
		" && apparmor_parser --replace " PROFILE);
	/* The package's is for the package's place. */
	put(EXAMPLE, "profile vmnet-broker-rootless {}\n");
	assert_string_equal(look("/usr/libexec/vmnet-broker").mend,
		"cp " EXAMPLE " /etc/apparmor.d/ && apparmor_parser --replace " PROFILE);
	assert_non_null(strstr(look(BROKER).mend, "profile vmnet-broker-rootless " BROKER));
	/* It is there: for doctor that is all that can be seen. */
	put(PROFILE, "profile vmnet-broker-rootless {}\n");
	assert_string_equal(look(BROKER).words, "");
	assert_string_equal(look(NULL).words, "userns-apparmor");
	assert_string_equal(look(NULL).mend, "apparmor_parser --replace " PROFILE);
	/* A broker that has it knows. */
	put("/proc/self/attr/apparmor/current", "vmnet-broker-rootless (unconfined)\n");
	assert_string_equal(look(NULL).words, "");
	put("/proc/self/attr/apparmor/current", "unprivileged_userns (enforce)\n");
	assert_string_equal(look(NULL).words, "userns-apparmor");
}

static void test_kernel_refuses(void **state)
{
	unshare_error = EPERM;
	assert_string_equal(look(BROKER).words, "userns-refused");
	assert_non_null(strstr(look(BROKER).text, "/etc/subuid are not needed"));
	/* A broker knows what it was told, and may not fork here. */
	assert_string_equal(look(NULL).words, "");
	unshare_error = ENOSPC;
	assert_non_null(strstr(look(BROKER).mend, "sysctl user.max_user_namespaces="));
	/* Where a file tells why, that is enough. */
	put("/proc/sys/user/max_user_namespaces", "0\n");
	assert_string_equal(look(BROKER).words, "userns-off");
}

static void test_tun(void **state)
{
	take_away("/dev/net/tun");
	assert_found("no-tun", OBSTACLE_VITAL, "there is no /dev/net/tun", "modprobe tun");
	tun_error = ENODEV;
	assert_found("no-tun", OBSTACLE_VITAL, "No such device", "modprobe tun");
	tun_error = EACCES;
	assert_found(
		"no-tun", OBSTACLE_VITAL, "is not open to this user", "chmod 0666 /dev/net/tun");
	tun_error = EPERM;
	assert_found("no-tun", OBSTACLE_VITAL, "this container",
		"start the container with --device /dev/net/tun");
}

static void test_programs(void **state)
{
	take_away("/usr/sbin/dnsmasq");
	assert_found("no-dnsmasq", OBSTACLE_VITAL, "dnsmasq is not installed",
		"apt install dnsmasq-base");
	put("/usr/local/sbin/dnsmasq", "");
	assert_string_equal(look(NULL).words, "");
	take_away("/usr/local/sbin/dnsmasq");
	put("/usr/sbin/dnsmasq", "");
	take_away("/usr/bin/pasta");
	assert_found("no-pasta", OBSTACLE_PART, "not the world", "apt install passt");
	put_bytes("/usr/local/bin/pasta", pasta_bytes, sizeof(pasta_bytes));
	assert_string_equal(look(NULL).words, "");
}

static void test_old_pasta(void **state)
{
	static const char old[] = "\177ELF\0config-net\0ns-ifname\0dns-forward\0tcp-ports\0"
				  "udp-ports\0tcp-ns\0udp-ns\0netns\0no-map-gw\0";

	put_bytes("/usr/bin/pasta", old, sizeof(old));
	assert_string_equal(look(NULL).words, "old-pasta");
	assert_non_null(strstr(
		look(NULL).text, "/usr/bin/pasta is too old: it does not know --netns-only"));
	/* A script that starts another one may well have no word of it. */
	put("/usr/bin/pasta", "#!/bin/sh\nexec /opt/passt/pasta \"$@\"\n");
	assert_string_equal(look(NULL).words, "");
	put("/usr/bin/pasta", "");
	assert_string_equal(look(NULL).words, "");
}

static void test_ping(void **state)
{
	put("/proc/sys/net/ipv4/ping_group_range", "1\t0\n");
	assert_found("ping-range", OBSTACLE_PART, "this user's group 1000",
		"sysctl net.ipv4.ping_group_range='0 2147483647'");
	put("/proc/sys/net/ipv4/ping_group_range", "1000\t1000\n");
	assert_string_equal(look(NULL).words, "");
}

static void test_ports(void **state)
{
	put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
	assert_found("low-ports", OBSTACLE_NOTE, "begin at port 1024",
		"sysctl net.ipv4.ip_unprivileged_port_start=80");
	put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "80\n");
	assert_string_equal(look(NULL).words, "");
}

static void test_worst_first(void **state)
{
	put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
	put("/proc/sys/net/ipv4/ping_group_range", "1\t0\n");
	put("/proc/sys/user/max_user_namespaces", "0\n");
	take_away("/usr/bin/pasta");
	tun_error = EACCES;
	assert_string_equal(look(BROKER).words, "userns-off no-tun no-pasta ping-range low-ports");
	/* Root's broker needs neither namespaces nor pasta. */
	uid = 0;
	assert_string_equal(look(BROKER).words, "no-tun");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_nothing, set_up),
		cmocka_unit_test_setup(test_switches, set_up),
		cmocka_unit_test_setup(test_apparmor, set_up),
		cmocka_unit_test_setup(test_kernel_refuses, set_up),
		cmocka_unit_test_setup(test_tun, set_up),
		cmocka_unit_test_setup(test_programs, set_up),
		cmocka_unit_test_setup(test_old_pasta, set_up),
		cmocka_unit_test_setup(test_ping, set_up),
		cmocka_unit_test_setup(test_ports, set_up),
		cmocka_unit_test_setup(test_worst_first, set_up),
	};
	char command[64];
	int result;

	assert_non_null(mkdtemp(place));
	result = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", place);
	return system(command) == 0 ? result : 1;
}
