#include "base/sandbox.h"

#include "base/cleanup.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

int sandbox_become_user(uid_t uid, gid_t gid, const char *user_name)
{
	uid_t real_uid, effective_uid, saved_uid;

	if ((user_name ? initgroups(user_name, gid) : setgroups(0, NULL)) < 0)
		return -errno;
	if (setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	if (getresuid(&real_uid, &effective_uid, &saved_uid) < 0)
		return -errno;
	if (real_uid != uid || effective_uid != uid || saved_uid != uid)
		return -EPERM;
	if (uid != 0 && setuid(0) == 0)
		return -EPERM;
	return 0;
}

int sandbox_drop_capabilities(void)
{
	bool may_bound;

	if (capng_get_caps_process() < 0)
		return -EPERM;
	/* A service manager that has taken them all has taken capset(2), too. */
	if (capng_have_capabilities(CAPNG_SELECT_ALL) == CAPNG_NONE)
		return 0;
	/* Without that an ordinary user's bounding set is left as it was. */
	may_bound = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	capng_clear(CAPNG_SELECT_ALL);
	if (may_bound)
		capng_apply(CAPNG_SELECT_BOUNDS);
	if (capng_apply(CAPNG_SELECT_CAPS) != 0)
		return -EPERM;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

int sandbox_no_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static void release_filter(scmp_filter_ctx *filter)
{
	if (*filter)
		seccomp_release(*filter);
}

static int load_filter(const char *const *names, uint32_t otherwise, uint32_t for_named)
{
	__attribute__((__cleanup__(release_filter))) scmp_filter_ctx filter =
		seccomp_init(otherwise);

	if (!filter)
		return -ENOMEM;
	for (; *names; names++) {
		int number = seccomp_syscall_resolve_name(*names);
		int error;

		if (number == __NR_SCMP_ERROR)
			continue;
		error = seccomp_rule_add(filter, for_named, number, 0);
		if (error)
			return error;
	}
	return seccomp_load(filter);
}

int sandbox_allow_system_calls(const char *const *names)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	/* The sanitizers' own threads and reports need calls that the product never makes. */
	(void)names;
	return sandbox_no_new_privileges();
#else
	return load_filter(names, SCMP_ACT_ERRNO(ENOSYS), SCMP_ACT_ALLOW);
#endif
}

int sandbox_deny_system_calls(const char *const *names)
{
	return load_filter(names, SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM));
}
