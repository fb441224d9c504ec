/*
 * Starting the broker of an ordinary user: everything that the system's broker is, in namespaces of
 * this user's own (src/rootless).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rootless_options {
	const char *config_directory; /* NULL: none */
	const char *runtime_directory;
	const char *state_directory;
	uint32_t idle_timeout_s;
	bool exit_when_idle;
	bool allows_host_loopback; /* VMs reach what listens on the host's 127.0.0.1 */
	bool verbose;
};

/* Serves until it is told to end, or has been idle. Logs. Negative errno when it could not start.
 */
int rootless_run(const struct rootless_options *options);

/* What it runs inside the namespaces: priv, at fd 3 the socket where fronts connect. */
int rootless_run_priv(
	const char *runtime_directory, const char *state_directory, uint32_t instance);
