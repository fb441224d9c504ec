/*
 * The configuration of a running broker: its files are watched, and read again when they change.
 */
#pragma once

#include "broker/name-service.h"

struct config_watch;

/* Gives a configuration that was read, with the numbers of its names, away. */
typedef void config_watch_done(void *context, struct config *config);

/*
 * Reads a configuration from directory, for the first time and blocking, and starts to watch it.
 * Its directory may be missing, come later, be a symbolic link, or be replaced as a whole. names
 * and directory outlive the watch. *ret_config is the caller's: config_free(). Mistakes are logged
 * and are no failure. Negative errno.
 */
int config_watch_new(const char *directory, struct name_service *names,
	struct config_watch **ret_watch, struct config **ret_config);

/* From now on done is called from the loop for what is read again. Negative errno. */
int config_watch_start(
	struct config_watch *watch, sd_event *event, config_watch_done *done, void *context);

/* Reads it again in any case; done follows. */
void config_watch_reload(struct config_watch *watch);

/* NULL is allowed. */
void config_watch_free(struct config_watch *watch);
