/*
 * MACs and interface ids that stay the same for the same VM on the same machine.
 */
#pragma once

#include "base/text.h"

#include <sys/types.h>

/*
 * A MAC that follows from an interface id: locally administered, unicast, never a reserved one. It
 * depends on the machine (sd_id128_get_machine_app_specific(3)), or on instance where the machine
 * has no id, so that one id on two machines of a LAN gives two MACs.
 */
struct mac mac_from_interface_id(const struct uuid *interface_id, uint32_t instance);

/* The interface id of a VM that is known by its name only: network, user and hostname. */
struct uuid interface_id_from_hostname(
	const char *network, uid_t uid, const char *hostname, uint32_t instance);

/* 16 random bytes made a version 4 UUID (RFC 9562 5.4). */
struct uuid interface_id_from_random(const uint8_t random[UUID_SIZE]);
