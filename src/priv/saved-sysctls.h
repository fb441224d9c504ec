/*
 * Switches of the host that are ours for a while: what each was before is kept in a file, so that
 * it is put back whoever was killed meanwhile. The file lies where a reboot, which forgets the
 * switches too, takes it away.
 */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

/* The file's name in the runtime directory. Root's, one line a switch:
 *     FAMILY INTERFACE KEY BEFORE OURS
 */
#define SAVED_SYSCTLS_FILE "sysctls"

/* More than this are no switches of ours. */
#define SAVED_SYSCTLS_MAX 1024

struct saved_sysctl {
	char family[5]; /* "ipv4", "ipv6" */
	char interface_name[IFNAMSIZ];
	char key[20];
	char before, ours; /* values, "0" to "9" */
	bool wanted;
};

/* What is to be put back. Zero it but for the directories first; these stay the caller's. */
struct saved_sysctls {
	const char *directory; /* the runtime directory */
	const char *root;      /* /proc/sys/net */
	struct saved_sysctl *switches;
	size_t count;
};

/*
 * Reads the file; none is an empty one. -EPERM when it is not root's alone; -EBADMSG when it has a
 * line that is none.
 */
int saved_sysctls_load(struct saved_sysctls *saved);

/* Frees the list; the file stays. */
void saved_sysctls_done(struct saved_sysctls *saved);

/*
 * Sets ROOT/FAMILY/conf/INTERFACE/KEY to value and wants it so; the file says what it was before
 * that happens. A switch that has the value already is not ours and is left alone later, too.
 * -ENOENT: no such interface or key.
 */
int saved_sysctls_set(struct saved_sysctls *saved, const char *family, const char *interface_name,
	const char *key, char value);

/*
 * Puts back what nobody wanted since the load, in the reverse order, unless somebody changed it
 * meanwhile or turned it on for every interface. Removes the file when nothing is left in it.
 */
int saved_sysctls_restore(struct saved_sysctls *saved);
