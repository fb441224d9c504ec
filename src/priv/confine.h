/*
 * What this process and its children may do: capabilities, system calls, and dying together.
 */
#pragma once

#include <sys/types.h>

/*
 * Keeps NET_ADMIN, NET_RAW, NET_BIND_SERVICE, SETUID, SETGID and KILL, in the permitted, effective
 * and bounding sets, and nothing else; sets no_new_privs; denies the system calls that neither this
 * process nor dnsmasq has a use for (mounting, modules, tracing, namespaces, ...). -EPERM when a
 * capability is missing or cannot be given up.
 */
int confine_process(void);

/* Whom a child becomes. */
struct confine_user {
	uid_t uid;
	gid_t gid;
	const char *user_name; /* its supplementary groups, or NULL for none */
	pid_t parent;          /* getpid() of the caller of spawn() */
};

/*
 * For spawn()'s prepare: becomes the user without any capability, and gets SIGKILL when the parent
 * dies or exec() is not reached within seconds. context is a struct confine_user. A uid that is the
 * process's own already is kept as it is.
 */
int confine_prepare_front(void *context);

/* The same, but keeps NET_ADMIN, NET_RAW and NET_BIND_SERVICE over exec, in a session of its own,
 * in directory /. */
int confine_prepare_dnsmasq(void *context);
