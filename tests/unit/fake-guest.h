/*
 * A guest's memory and one ring in it, with the driver's side done by hand: well or badly.
 *
 * The memory is two regions that lie behind one another for the guest, but not for the front-end:
 * a buffer may run from one into the other.
 */
#pragma once

#include "helper/vhost-user-ring.h"

#define FAKE_REGION_SIZE 0x20000u
#define FAKE_GUEST_BASE  0x80000000u /* of the first region; the second follows */
#define FAKE_USER_BASE_1 0x10000000u
#define FAKE_USER_BASE_2 0x30000000u
#define FAKE_RING_SIZE   16u
#define FAKE_DESCRIPTORS 0x0u /* offsets in the first region */
#define FAKE_AVAIL       0x1000u
#define FAKE_USED        0x2000u
#define FAKE_TABLE       0x3000u
#define FAKE_BUFFERS     0x4000u
#define FAKE_BUFFER_SIZE 0x1000u

struct fake_guest {
	int file;
	uint8_t *bytes; /* both regions, behind one another */
	struct vhost_user_memory memory;
	struct vhost_user_ring_place place;
};

/* Fails the test when there is no memory. */
void fake_guest_init(struct fake_guest *guest);
void fake_guest_done(struct fake_guest *guest);

struct vring_desc *fake_descriptor(const struct fake_guest *guest, unsigned int index);
struct vring_desc *fake_table(const struct fake_guest *guest, unsigned int index);
struct vring_avail *fake_avail(const struct fake_guest *guest);
struct vring_used *fake_used(const struct fake_guest *guest);

/* The guest's address of a byte. */
uint64_t fake_address(size_t offset);

/* Fills in a descriptor: offset in the memory, flags, next. */
void fake_set(
	struct vring_desc *descriptor, size_t offset, uint32_t size, uint16_t flags, uint16_t next);

/* Puts a chain's head into the avail ring and shows it. */
void fake_give(const struct fake_guest *guest, uint16_t head);
