/*
 * The front: the part of the broker that reads clients' bytes and holds policy, without a single
 * capability.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Where priv leaves the sockets of a front that it has started. */
#define FRONT_VERBS  3
#define FRONT_LISTEN 4

struct front_options {
	const char *config_directory;
	const char *runtime_directory;
	const char *state_directory;
	int verbs;     /* to priv */
	int listen_fd; /* for clients */
	/* A service of its own: tells the service manager what it does and is told the instance by
	 * priv. */
	bool is_unit;
	/* priv and the networks are in namespaces of this user's own (src/rootless). */
	bool is_rootless;
	uint32_t instance; /* else */
	uint32_t idle_timeout_s;
	bool exit_when_idle;
};

/*
 * Serves until it is told to end, or has been idle, or priv is gone (-ENOTCONN). Both fds are its
 * own until the process ends. SIGHUP makes it read the configuration again. Logs. Returns 0 or
 * negative errno.
 */
int front_run(const struct front_options *options);
