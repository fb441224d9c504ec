/*
 * Starting vmnet-helper: its command line, where it is, and its word that it is ready.
 */
#pragma once

#include "run/run-options.h"
#include "run/supervisor.h"

#include <stddef.h>

#define HELPER_ARGUMENTS_MAX 32
#define HELPER_LINE_SIZE     4096 /* with its NUL */
#define HELPER_READY_MS      30000
#define HELPER_ERROR_SIZE    256

/* vmnet-helper's words. They point into this struct and into the options, which must live on,
 * unmoved. */
struct helper_arguments {
	char *words[HELPER_ARGUMENTS_MAX]; /* NULL-terminated */
	char interface_id[UUID_TEXT_SIZE];
	char mac[MAC_TEXT_SIZE];
	char stats_interval[12];
	char queues[12];
};

/* Fills in what the options ask of the helper, which serves vhost-user at vhost_user_path, or
 * with NULL its fd 3. Pure. */
void helper_arguments_make(const struct run_options *options, const char *vhost_user_path,
	struct helper_arguments *arguments);

/*
 * Starts vmnet-helper, found beside this executable, as the supervisor's helper, with vm_socket as
 * its fd 3 unless that is -1. vm_socket is taken over: the helper must hold the only copy, so that
 * the VM sees its end. *ret_output, owned by the caller, is its stdout. On failure negative errno,
 * and error (HELPER_ERROR_SIZE bytes) says what to do.
 */
int helper_process_start(struct supervisor *supervisor, const struct helper_arguments *arguments,
	int vm_socket, int *ret_output, char *error);

/*
 * Waits until the helper is ready, at most HELPER_READY_MS, and writes its line, newline included,
 * to line (HELPER_LINE_SIZE bytes). -EINTR when a signal told this process to stop; other negative
 * errno with a text in error.
 */
int helper_process_wait_ready(struct supervisor *supervisor, int output, char *line, char *error);
