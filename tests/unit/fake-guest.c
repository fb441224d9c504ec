#include "fake-guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void add_region(struct fake_guest *guest, uint64_t user_address, size_t offset)
{
	const struct vhost_user_region_description region = {
		.guest_address = FAKE_GUEST_BASE + offset,
		.user_address = user_address,
		.size = FAKE_REGION_SIZE,
		.mmap_offset = offset,
	};

	assert_int_equal(vhost_user_memory_add(&guest->memory, &region, dup(guest->file)), 0);
}

void fake_guest_init(struct fake_guest *guest)
{
	memset(guest, 0, sizeof(*guest));
	guest->file = memfd_create("fake-guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(guest->file, 2 * FAKE_REGION_SIZE), 0);
	guest->bytes = mmap(
		NULL, 2 * FAKE_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, guest->file, 0);
	assert_ptr_not_equal(guest->bytes, MAP_FAILED);
	add_region(guest, FAKE_USER_BASE_1, 0);
	add_region(guest, FAKE_USER_BASE_2, FAKE_REGION_SIZE);
	guest->place = (struct vhost_user_ring_place){
		.size = FAKE_RING_SIZE,
		.descriptors = FAKE_USER_BASE_1 + FAKE_DESCRIPTORS,
		.avail = FAKE_USER_BASE_1 + FAKE_AVAIL,
		.used = FAKE_USER_BASE_1 + FAKE_USED,
		.has_event_index = true,
		.has_indirect = true,
	};
}

void fake_guest_done(struct fake_guest *guest)
{
	vhost_user_memory_done(&guest->memory);
	munmap(guest->bytes, 2 * FAKE_REGION_SIZE);
	close(guest->file);
}

struct vring_desc *fake_descriptor(const struct fake_guest *guest, unsigned int index)
{
	return (struct vring_desc *)(guest->bytes + FAKE_DESCRIPTORS) + index;
}

struct vring_desc *fake_table(const struct fake_guest *guest, unsigned int index)
{
	return (struct vring_desc *)(guest->bytes + FAKE_TABLE) + index;
}

struct vring_avail *fake_avail(const struct fake_guest *guest)
{
	return (struct vring_avail *)(guest->bytes + FAKE_AVAIL);
}

struct vring_used *fake_used(const struct fake_guest *guest)
{
	return (struct vring_used *)(guest->bytes + FAKE_USED);
}

uint64_t fake_address(size_t offset)
{
	return FAKE_GUEST_BASE + offset;
}

void fake_set(
	struct vring_desc *descriptor, size_t offset, uint32_t size, uint16_t flags, uint16_t next)
{
	*descriptor = (struct vring_desc){
		.addr = fake_address(offset), .len = size, .flags = flags, .next = next};
}

void fake_give(const struct fake_guest *guest, uint16_t head)
{
	struct vring_avail *avail = fake_avail(guest);

	avail->ring[avail->idx % FAKE_RING_SIZE] = head;
	__atomic_store_n(&avail->idx, (uint16_t)(avail->idx + 1), __ATOMIC_SEQ_CST);
}
