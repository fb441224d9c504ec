/*
 * Ad-hoc networks: nobody configured them, a mode and addresses say all there is to say. Their name
 * is derived from these and stands for them, so that the same options lead to the same network, and
 * a network whose broker went away can be asked for again by its name alone:
 *
 *     shared-192.168.200.1-24-254       MODE-HOST'S ADDRESS-PREFIX LENGTH-OFFSET OF THE LAST
 * ADDRESS
 */
#pragma once

#include "base/address-range.h"
#include "broker/settings.h"

/* The name; mode is shared or host. It always fits. */
void adhoc_make_name(
	enum network_mode mode, const struct address_layout *layout, char name[NETWORK_NAME_SIZE]);

/*
 * The settings a name stands for. False for every other name: each network has one name only, so
 * that another spelling of its addresses is none.
 */
bool adhoc_read_name(const char *name, struct network_settings *ret_settings);
