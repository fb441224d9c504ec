#include "priv/confine.h"

#include "base/cleanup.h"
#include "base/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define EXEC_PATIENCE_S 2

static const unsigned int own_capabilities[] = {
	CAP_NET_ADMIN,
	CAP_NET_RAW,
	CAP_NET_BIND_SERVICE,
	CAP_SETUID,
	CAP_SETGID,
	CAP_KILL,
};

static const unsigned int dnsmasq_capabilities[] = {
	CAP_NET_ADMIN,
	CAP_NET_RAW,
	CAP_NET_BIND_SERVICE,
};

static const char *const denied_calls[] = {
	"mount",
	"umount",
	"umount2",
	"mount_setattr",
	"move_mount",
	"open_tree",
	"fsopen",
	"fsconfig",
	"fsmount",
	"fspick",
	"pivot_root",
	"chroot",
	"quotactl",
	"quotactl_fd",
	"swapon",
	"swapoff",
	"mknod",
	"mknodat",
	"open_by_handle_at",
	"unshare",
	"setns",
#if !defined(__SANITIZE_ADDRESS__)
	"ptrace", /* the leak checker traces its own process */
#endif
	"process_vm_readv",
	"process_vm_writev",
	"process_madvise",
	"pidfd_getfd",
	"perf_event_open",
	"bpf",
	"userfaultfd",
	"lookup_dcookie",
	"kcmp",
	"init_module",
	"finit_module",
	"delete_module",
	"create_module",
	"kexec_load",
	"kexec_file_load",
	"reboot",
	"keyctl",
	"add_key",
	"request_key",
	"settimeofday",
	"clock_settime",
	"clock_settime64",
	"clock_adjtime",
	"clock_adjtime64",
	"adjtimex",
	"stime",
	"sethostname",
	"setdomainname",
	"syslog",
	"acct",
	"vhangup",
	"iopl",
	"ioperm",
	"modify_ldt",
	"nfsservctl",
	"personality",
	"io_uring_setup",
	"io_uring_enter",
	"io_uring_register",
	NULL,
};

static bool is_own_capability(unsigned int capability)
{
	for (size_t i = 0; i < array_length(own_capabilities); i++)
		if (own_capabilities[i] == capability)
			return true;
	return false;
}

/* A service manager may have cut the bounding set already and kept SETPCAP from us: what counts is
 * what is left. */
static int check_bounding_set(void)
{
	for (unsigned int capability = 0; capability <= CAP_LAST_CAP; capability++)
		if (prctl(PR_CAPBSET_READ, capability) == 1 && !is_own_capability(capability))
			return -EPERM;
	return 0;
}

static int select_capabilities(
	capng_type_t sets, const unsigned int *capabilities, size_t capabilities_count)
{
	for (size_t i = 0; i < capabilities_count; i++)
		if (capng_update(CAPNG_ADD, sets, capabilities[i]) < 0)
			return -EPERM;
	return 0;
}

static int trim_capabilities(void)
{
	bool may_bound = capng_get_caps_process() == 0 &&
			 capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	int error;

	capng_clear(CAPNG_SELECT_ALL);
	error = select_capabilities(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET,
		own_capabilities, array_length(own_capabilities));
	if (error)
		return error;
	if (may_bound)
		(void)capng_apply(CAPNG_SELECT_BOUNDS);
	if (capng_apply(CAPNG_SELECT_CAPS) < 0)
		return -EPERM;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	return check_bounding_set();
}

int confine_process(void)
{
	int error = trim_capabilities();

	if (!error)
		error = sandbox_no_new_privileges();
	if (!error)
		error = sandbox_deny_system_calls(denied_calls);
	return error;
}

/*
 * From when it is the front's user until it is another program the child can be stopped by
 * whatever else that user runs, and spawn() would wait for ever. exec() takes the timer away
 * (timer_create(2)).
 */
static int limit_time_to_exec(void)
{
	struct sigevent end = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	const struct itimerspec patience = {.it_value.tv_sec = EXEC_PATIENCE_S};
	timer_t timer;

	if (timer_create(CLOCK_MONOTONIC, &end, &timer) < 0 ||
		timer_settime(timer, 0, &patience, NULL) < 0)
		return -errno;
	return 0;
}

static int become_user(const struct confine_user *user)
{
	if (user->uid == geteuid())
		return 0;
	return sandbox_become_user(user->uid, user->gid, user->user_name);
}

/*
 * Last of all, because the kernel clears it whenever credentials change (prctl(2)). The parent may
 * have died just before.
 */
static int die_with_parent(const struct confine_user *user)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	return getppid() == user->parent ? 0 : -ECHILD;
}

int confine_prepare_front(void *context)
{
	const struct confine_user *user = context;
	int error = limit_time_to_exec();

	if (!error)
		error = become_user(user);
	if (!error)
		error = sandbox_drop_capabilities();
	return error ? error : die_with_parent(user);
}

static int keep_dnsmasq_capabilities(void)
{
	int error;

	capng_clear(CAPNG_SELECT_ALL);
	error = select_capabilities(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE,
		dnsmasq_capabilities, array_length(dnsmasq_capabilities));
	if (error)
		return error;
	if (capng_apply(CAPNG_SELECT_CAPS) < 0)
		return -EPERM;
	for (size_t i = 0; i < array_length(dnsmasq_capabilities); i++)
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, dnsmasq_capabilities[i], 0, 0) < 0)
			return -errno;
	return 0;
}

int confine_prepare_dnsmasq(void *context)
{
	const struct confine_user *user = context;
	int error;

	/* Signals of our terminal are for us; it ends when we say so. */
	if (setsid() < 0 || chdir("/") < 0 || prctl(PR_SET_KEEPCAPS, 1) < 0)
		return -errno;
	error = limit_time_to_exec();
	if (!error)
		error = become_user(user);
	if (!error)
		error = keep_dnsmasq_capabilities();
	return error ? error : die_with_parent(user);
}
