/*
 * Giving privileges up: users, capabilities and system calls.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * Becomes uid and gid for good: supplementary groups first, then gid, then uid, all three ids of
 * each, then checks that there is no way back. With user_name the user's own groups are taken
 * (initgroups(3)), without it none. Only root may call it; negative errno on failure, after which
 * the caller must not go on.
 */
int sandbox_become_user(uid_t uid, gid_t gid, const char *user_name);

/* Clears every capability set, the ambient and (where allowed) the bounding one included. */
int sandbox_drop_capabilities(void);

/* PR_SET_NO_NEW_PRIVS: no exec from here on gains anything (kernel: userspace-api/no_new_privs). */
int sandbox_no_new_privileges(void);

/*
 * From here on only the named system calls work; any other returns ENOSYS, so that a newer libc can
 * fall back. names is NULL-terminated; those this machine does not know are passed over. Sets
 * no_new_privs.
 */
int sandbox_allow_system_calls(const char *const *names);

/* The opposite, for a process that starts foreign programs: the named system calls return EPERM. */
int sandbox_deny_system_calls(const char *const *names);
