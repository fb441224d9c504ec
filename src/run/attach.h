/*
 * Making an attachment with the broker's help, before anything is started: what can go wrong here
 * is said while there is nothing to undo.
 */
#pragma once

#include "run/attachment.h"
#include "run/run-options.h"

#include <vmnet-broker.h>

#define ATTACH_ERROR_SIZE 1024

/*
 * The kinds with a helper: holds the network for the life of broker, and makes the socket pair of a
 * socket kind, with large buffers. Small buffers are only warned of, since they cost speed and no
 * more. The rest of attachment comes from the helper's line, and of vhost-user the path from who
 * starts the helper. attachment must be initialised; on failure it owns what was made so far.
 * Negative errno, with a text in error (ATTACH_ERROR_SIZE bytes).
 */
int attach_through_helper(vmnet_broker_t *broker, const struct run_options *options,
	struct attachment *attachment, char *error);

/* The kinds without a helper, native and tap: creates the interface; its fds, of which tap has
 * none, and its line of JSON are in attachment then. As above. */
int attach_directly(vmnet_broker_t *broker, const struct run_options *options,
	struct attachment *attachment, char *error);
