/*
 * A broker for programs that must work where none was set up: connect, and start one first if there
 * is none and we may.
 */
#pragma once

#include "vmnet-broker.h"

#include <limits.h>
#include <stdbool.h>

#define START_BROKER_ERROR_SIZE 1024
#define START_BROKER_NOTE_SIZE  1024

/*
 * Connects to the broker as vmnet_broker_connect(NULL) does. If none answers that is for this user,
 * and VMNET_BROKER_SOCKET is not set, starts vmnet-broker --exit-when-idle, for others than root
 * with --rootless, detached, from beside our own executable or from where it is installed, and
 * waits until it answers. Several processes may do so at once. Returns a handle to be closed with
 * vmnet_broker_close(), and in note (START_BROKER_NOTE_SIZE bytes) what the user should know about
 * a broker that was started, line by line, or ""; or NULL with what was tried and what to do in
 * error (START_BROKER_ERROR_SIZE bytes).
 */
vmnet_broker_t *start_broker(char *note, char *error);

/* The vmnet-broker that start_broker() would start. -ENOENT: there is none. */
int start_broker_find_program(char program[PATH_MAX]);

/*
 * When the system's broker serves and is not for this user: says so in text, and in mend what root
 * does about it (START_BROKER_NOTE_SIZE / 2 bytes each). False: it is not so.
 */
bool start_broker_explain_refusal(char *text, char *mend);
