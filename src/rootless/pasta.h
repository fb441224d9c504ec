/*
 * pasta (passt.top): what joins the networks' namespace to the host's network without privilege.
 */
#pragma once

#include "rootless/namespaces.h"

/* The interface that it makes in the namespace; all that VMs send to the world leaves by it. */
#define PASTA_INTERFACE "uplink0"
/* Where it answers for a name server on the host's loopback: link-local, so nobody else's (RFC
 * 3927). */
#define PASTA_RESOLVER "169.254.1.53"

struct pasta_options {
	const struct namespaces *namespaces;
	/* VMs reach programs that listen on 127.0.0.1 of the host, at the address of the host's own
	 * router. */
	bool maps_loopback;
};

/* Fixed places, because PATH is the environment's word; NULL: not installed. */
const char *pasta_find_program(void);

/*
 * Which option that it is started with the program at path does not know, because it is too old;
 * NULL: none. Looked for in its text, as Debian's does not tell its version. Only a program in
 * machine code can be missing one.
 */
const char *pasta_find_missing_option(const char *path);

/*
 * Starts it, with log for what it says, as root of the user namespace: a process that enters one
 * by itself would forget whose death is its own. It makes the interface, and serves until it is
 * killed or this process dies. -ENOENT: not installed; other negative errno of spawn().
 */
int pasta_start(const struct pasta_options *options, int log, pid_t *ret_pid, int *ret_pidfd);
