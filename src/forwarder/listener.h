/* One forward with the socket that listens for it. */
#pragma once

#include "forwarder/forwarder-protocol.h"
#include "forwarder/loop.h"

#include <stdbool.h>

struct listeners;

struct listener {
	struct watch watch;
	struct listeners *listeners;
	struct forwarder_forward forward;
	int fd;            /* owned; -1: this place is free */
	bool is_mentioned; /* since the last BEGIN */
	bool is_resting;   /* the system is out of something: not watched for a while */
};
