/*
 * Opening the Linux platform; what it does then is platform.h's.
 */
#pragma once

#include "broker/platform.h"

#include <systemd/sd-event.h>

/*
 * verbs is the socket to priv. It stays open until the process ends: priv takes its end for the
 * front's death. The loop ends with -ENOTCONN when priv is gone. instance is that of our links;
 * NULL: priv is asked for it. rootless_directory: the networks are in another network namespace
 * than this process, and that is its runtime directory; else NULL. Negative errno.
 */
int platform_open(sd_event *event, const uint32_t *instance, const char *rootless_directory,
	int verbs, struct platform **ret_platform);
void platform_close(struct platform *platform);

/* Whose links it works on. */
uint32_t platform_instance(const struct platform *platform);
