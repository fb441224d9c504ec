/*
 * The broker of an ordinary user: this process is what systemd is to the system's broker. It keeps
 * priv, the forwarder, pasta and the front running, each where it belongs, and holds no policy.
 */
#pragma once

#include "rootless/namespaces.h"

#include <stdbool.h>
#include <stdint.h>

/* All strings and fds stay the caller's and must live until supervisor_run() returns. */
struct supervisor_options {
	const char *runtime_directory;
	struct namespaces *namespaces; /* kept alive: a pause process that dies is replaced */
	/* argv of each, NULL-terminated: the same program is started with them. */
	char *const *priv_arguments;      /* in both namespaces; fronts connect to its fd 3 */
	char *const *forwarder_arguments; /* the same */
	char *const *front_arguments; /* outside; a connection to priv at fd 3, listen_fd at 4 */
	int listen_fd;
	bool maps_loopback; /* see pasta.h */
};

/*
 * Runs until the front exits with 0, or a SIGTERM or SIGINT comes, which is passed on to the front;
 * whoever dies before is started again: at once the first time, then ever later, up to 5 s. When
 * this process dies, so do they. Logs. Returns 0, or negative errno: -ECANCELED when priv or the
 * front cannot start, which has said why.
 */
int supervisor_run(const struct supervisor_options *options);
