/*
 * Numbers of users and groups. Names may live in a directory far away (nsswitch.conf(5)): asking
 * can take long, and needs code and system calls that nothing that serves clients should have. So a
 * process of its own asks, which is started before the front's sandbox is entered, as the same
 * user, and ends with the front.
 */
#pragma once

#include "broker/config.h"

#include <systemd/sd-event.h>

/* For all names of a configuration together. */
#define NAME_SERVICE_TIMEOUT_MS 10000

struct name_service;

/* Starts the process. Negative errno. */
int name_service_start(struct name_service **ret_service);

/* Ends it. NULL is allowed. */
void name_service_free(struct name_service *service);

/*
 * Fills in the numbers of all names of a configuration, and blocks for that: for the start, when
 * nothing is served yet. Logs which are unknown, and when there was no time left to ask.
 */
void name_service_resolve(struct name_service *service, struct config *config);

/*
 * The same without blocking: done is called from the loop, or at once when there are no names.
 * config stays the caller's, and must stay where it is until then. One at a time.
 */
typedef void name_service_done(void *context);
void name_service_resolve_later(struct name_service *service, sd_event *event,
	struct config *config, name_service_done *done, void *context);
