#include "broker/mac.h"

#include "priv/names.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>

/* FNV-1a with 128 bits: only spreads text over the space of ids, the secrecy comes from sd-id128.
 */
#define FNV_PRIME  (((unsigned __int128)1 << 88) + 0x13b)
#define FNV_OFFSET (((unsigned __int128)0x6c62272e07bb0142 << 64) + 0x62b821756295c58d)

static sd_id128_t hash_bytes(sd_id128_t seed, const void *bytes, size_t size)
{
	unsigned __int128 hash = FNV_OFFSET;
	sd_id128_t id;

	for (size_t i = 0; i < sizeof(seed.bytes); i++)
		hash = (hash ^ seed.bytes[i]) * FNV_PRIME;
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const uint8_t *)bytes)[i]) * FNV_PRIME;
	for (size_t i = 0; i < sizeof(id.bytes); i++)
		id.bytes[i] = (uint8_t)(hash >> (120 - 8 * i));
	return id;
}

/* What id means on this machine. */
static sd_id128_t localise(sd_id128_t id, uint32_t instance)
{
	sd_id128_t local;

	if (sd_id128_get_machine_app_specific(id, &local) >= 0)
		return local;
	return hash_bytes(id, &instance, sizeof(instance));
}

struct mac mac_from_interface_id(const struct uuid *interface_id, uint32_t instance)
{
	sd_id128_t id;
	struct mac mac;

	memcpy(id.bytes, interface_id->bytes, sizeof(id.bytes));
	id = localise(id, instance);
	memcpy(mac.bytes, id.bytes, sizeof(mac.bytes));
	mac.bytes[0] = (uint8_t)((mac.bytes[0] & ~1u) | 2u);
	if (mac_is_reserved(mac))
		mac.bytes[1] ^= 0x80;
	return mac;
}

static struct uuid mark_uuid(const uint8_t bytes[UUID_SIZE], uint8_t version)
{
	struct uuid uuid;

	memcpy(uuid.bytes, bytes, UUID_SIZE);
	uuid.bytes[6] = (uint8_t)((uuid.bytes[6] & 0x0f) | version << 4);
	uuid.bytes[8] = (uint8_t)((uuid.bytes[8] & 0x3f) | 0x80);
	return uuid;
}

struct uuid interface_id_from_hostname(
	const char *network, uid_t uid, const char *hostname, uint32_t instance)
{
	static const sd_id128_t hostname_space =
		SD_ID128_MAKE(4b, 0a, 1d, 6e, 57, 2c, 43, 9f, 8e, 51, 90, 3b, c7, 64, 12, d8);
	char text[NETWORK_NAME_SIZE + HOSTNAME_SIZE + 16];
	int length = snprintf(text, sizeof(text), "%s/%u/%s", network, uid, hostname);
	sd_id128_t id = localise(hash_bytes(hostname_space, text, (size_t)length), instance);

	/* Version 8: made by a vendor's own rule (RFC 9562 5.8). */
	return mark_uuid(id.bytes, 8);
}

struct uuid interface_id_from_random(const uint8_t random[UUID_SIZE])
{
	return mark_uuid(random, 4);
}
