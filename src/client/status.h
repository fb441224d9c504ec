/* A broker's answers in the library's numbers. */
#pragma once

#include "vmnet-broker.h"
#include "wire/varlink.h"

/* What an error answer is; its text goes into reason (BROKER_REASON_SIZE bytes). */
vmnet_broker_status_t status_from_reply(const struct varlink_reply *reply, char *reason);
