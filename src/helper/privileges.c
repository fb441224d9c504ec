#include "helper/privileges.h"

#include "base/sandbox.h"
#include "base/text.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the C library's threads, memory and files use differs from version to version: a call that
 * is missing here gets ENOSYS, for which the library has an older one. */
static const char *const allowed_system_calls[] = {
	/* the data path */
	"readv",
	"writev",
	"recvmmsg",
	"sendmmsg",
	"sendmsg",
	"recvmsg",
	"poll",
	"ppoll",
	"nanosleep",
	"clock_nanosleep",
	/* events, output */
	"read",
	"write",
	"lseek", /* dprintf(3) asks where it is */
	"fstat",
	"newfstatat",
	"timerfd_settime",
	"clock_gettime",
	"restart_syscall",
	/* who asks for counters, the client of --socket or --stream, and who sends */
	"listen",
	"accept4",
	"recvfrom",
	"connect",
	"setsockopt",
	"getsockopt",
	"getpeername",
	"eventfd2",
	"timerfd_create",
	"pidfd_open",
	"ioctl",
	"fcntl",
	/* threads and memory */
	"clone",
	"clone3",
	"set_robust_list",
	"rseq",
	"futex",
	"rt_sigprocmask",
	"rt_sigreturn",
	"mmap",
	"munmap",
	"mprotect",
	"mremap",
	"madvise",
	"brk",
	"getrandom",
	"sched_yield",
	"getpid",
	"gettid",
	"tgkill",
	/* the end */
	"lstat",
	"unlink",
	"unlinkat",
	"close",
	"exit",
	"exit_group",
	NULL,
};

static int fail(char *reason, int error, const char *what)
{
	snprintf(reason, PRIVILEGES_REASON_SIZE, "cannot %s: %s", what, strerror(-error));
	return error;
}

static int become(uid_t uid, gid_t gid, char *reason)
{
	/* A uid that no account has is in no other group either. */
	const struct passwd *user = getpwuid(uid);
	int error = sandbox_become_user(uid, gid, user ? user->pw_name : NULL);

	return error ? fail(reason, error, "give up root's identity") : 0;
}

/* Returns 1 when sudo names a user other than root, 0 when there is none to become. */
static int sudo_user(uid_t *ret_uid, gid_t *ret_gid, char *reason)
{
	const char *uid_text = getenv("SUDO_UID");
	const char *gid_text = getenv("SUDO_GID");

	if (!uid_text && !gid_text)
		return 0;
	/* (uid_t)-1 means "leave it as it is" to setresuid(2). */
	if (!uid_text || !gid_text || text_to_uint32(uid_text, 0, UINT32_MAX - 1, ret_uid) < 0 ||
		text_to_uint32(gid_text, 0, UINT32_MAX - 1, ret_gid) < 0) {
		snprintf(reason, PRIVILEGES_REASON_SIZE,
			"SUDO_UID and SUDO_GID have to be a user's two numbers; sudo sets both, so "
			"unset them or use sudo");
		return -EINVAL;
	}
	return *ret_uid != 0;
}

int privileges_give_up_root(char *reason)
{
	uid_t uid = getuid();
	gid_t gid = getgid();
	int found;
	int error;

	if (geteuid() != 0)
		return 0;
	if (uid != 0)
		return become(uid, gid, reason);
	found = sudo_user(&uid, &gid, reason);
	if (found < 0)
		return found;
	if (found)
		return become(uid, gid, reason);
	error = sandbox_drop_capabilities();
	return error ? fail(reason, error, "drop capabilities") : 0;
}

int privileges_enter_sandbox(char *reason)
{
	int error = sandbox_drop_capabilities();

	if (error)
		return fail(reason, error, "drop capabilities");
	error = sandbox_allow_system_calls(allowed_system_calls);
	return error ? fail(reason, error, "filter system calls") : 0;
}
