/*
 * A broker for programs that must work where none was set up: connect, and start one first if there
 * is none and we may.
 */
#pragma once

#include "vmnet-broker.h"

#define START_BROKER_ERROR_SIZE 1024

/*
 * Connects to the broker as vmnet_broker_connect(NULL) does. If none answers that is for this user,
 * and VMNET_BROKER_SOCKET is not set, starts vmnet-broker --exit-when-idle, for others than root
 * with --rootless, detached, from beside our own executable or from where it is installed, and
 * waits for its socket. Several processes may do so
 * at once. Returns a handle to be closed with vmnet_broker_close(), or NULL with what was tried and
 * what to do in error (START_BROKER_ERROR_SIZE bytes).
 */
vmnet_broker_t *start_broker(char *error);
