/*
 * This process, on its way to become a command inside the namespaces of a rootless broker: there it
 * reaches VMs as the host of a system's broker does.
 */
#pragma once

#include "rootless/namespaces.h"

#include <netinet/in.h>
#include <stdbool.h>

#define INSIDE_ERROR_SIZE 256

struct inside_options {
	const char *runtime_directory; /* of the broker; this user's */
	/* Who is asked for names: a network's gateway and its domain; NULL: whom the host asks. */
	const char *name_server;
	const char *domain;
	/* Root of the namespaces, with every capability there, rather than the user that one is
	 * outside, with none. */
	bool as_root;
};

/*
 * Enters, for good. The process must have one thread. Negative errno, with what failed and what to
 * do in error (INSIDE_ERROR_SIZE bytes); the process must not go on then. Returns 1, with why in
 * error, when all is well but that names are the host's.
 */
int inside_enter(struct namespaces *namespaces, const struct inside_options *options, char *error);
