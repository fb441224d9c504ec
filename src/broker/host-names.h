/*
 * The names of a network's VMs for the host's own programs.
 */
#pragma once

#include "broker/network.h"

/* Tells the host's resolver of a network that serves DNS; again when it serves again. A failure is
 * logged. */
void host_names_announce(const struct network *network);

/* Logs that the host's resolver refuses, and what to do. network may be NULL, or not run. */
void host_names_report_refusal(const struct network *network, const char *reason);
