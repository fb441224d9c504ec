#include "helper/vhost-user-ring.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

/* A descriptor lies where the guest says, aligned or not. */
struct raw_descriptor {
	uint64_t address;
	uint32_t size;
	uint16_t flags;
	uint16_t next;
} __attribute__((packed));
static_assert(
	sizeof(struct raw_descriptor) == sizeof(struct vring_desc), "as the guest lays it out");

/* One table that a chain runs through. */
struct walk {
	const volatile uint8_t *table;
	uint32_t table_size; /* descriptors */
	uint32_t steps_left;
	bool is_indirect;
};

/* The rings' indices and flags: one access each, whatever the compiler would like. */
static uint16_t load(const __virtio16 *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

static void store(__virtio16 *value, uint16_t amount)
{
	__atomic_store_n(value, amount, __ATOMIC_RELAXED);
}

/* On the guest's side of the used ring: read by us, with event index. */
static const __virtio16 *used_event(const struct vhost_user_ring *ring)
{
	return &ring->avail->ring[ring->size];
}

static __virtio16 *avail_event(struct vhost_user_ring *ring)
{
	return (__virtio16 *)&ring->used->ring[ring->size];
}

static int fault(struct vhost_user_ring *ring, const char *text)
{
	ring->fault = text;
	return -EPROTO;
}

int vhost_user_ring_init(struct vhost_user_ring *ring, const struct vhost_user_memory *memory,
	const struct vhost_user_ring_place *place, uint16_t position)
{
	/* With the event indices at their ends, which are there whether used or not. */
	size_t avail_size = sizeof(struct vring_avail) + (place->size + 1) * sizeof(__virtio16);
	size_t used_size = sizeof(struct vring_used) +
			   place->size * sizeof(struct vring_used_elem) + sizeof(__virtio16);
	struct vhost_user_ring new = {
		.memory = memory,
		.size = place->size,
		.has_event_index = place->has_event_index,
		.has_indirect = place->has_indirect,
		.next_avail = position,
		.seen_avail = position,
		.next_used = position,
		.published = position,
	};
	uint8_t *descriptors, *avail, *used;

	if (place->size == 0 || place->size > VHOST_USER_RING_SIZE_MAX ||
		(place->size & (place->size - 1)) != 0)
		return -EINVAL;
	descriptors = vhost_user_memory_find_user(
		memory, place->descriptors, place->size * sizeof(struct vring_desc));
	avail = vhost_user_memory_find_user(memory, place->avail, avail_size);
	used = vhost_user_memory_find_user(memory, place->used, used_size);
	if (!descriptors || !avail || !used)
		return -EFAULT;
	if ((uintptr_t)avail % VRING_AVAIL_ALIGN_SIZE || (uintptr_t)used % VRING_USED_ALIGN_SIZE)
		return -EINVAL;
	new.descriptors = descriptors;
	new.avail = (const struct vring_avail *)avail;
	new.used = (struct vring_used *)used;
	*ring = new;
	return 0;
}

uint16_t vhost_user_ring_stored_position(const struct vhost_user_ring *ring)
{
	return load(&ring->used->idx);
}

/* The guest writes index first what it points at, so whoever has seen the index may read that. */
static int look(struct vhost_user_ring *ring)
{
	uint16_t index = __atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE);

	if ((uint16_t)(index - ring->next_used) > ring->size)
		return fault(ring, "more buffers given than the queue has room for");
	if ((uint16_t)(index - ring->next_used) < (uint16_t)(ring->next_avail - ring->next_used))
		return fault(ring, "buffers taken back");
	ring->seen_avail = index;
	return 0;
}

static struct raw_descriptor read_descriptor(const struct walk *walk, uint32_t index)
{
	const volatile struct raw_descriptor *raw =
		(const volatile struct raw_descriptor *)walk->table + index;

	return (struct raw_descriptor){
		.address = raw->address,
		.size = raw->size,
		.flags = raw->flags,
		.next = raw->next,
	};
}

static int enter_table(
	struct vhost_user_ring *ring, struct walk *walk, const struct raw_descriptor *descriptor)
{
	uint32_t count = descriptor->size / sizeof(struct vring_desc);
	uint8_t *table;

	if (walk->is_indirect || !ring->has_indirect)
		return fault(ring, "an indirect table where none may be");
	if (descriptor->flags & VRING_DESC_F_NEXT)
		return fault(ring, "an indirect table that is not the chain's end");
	if (count == 0 || count > VHOST_USER_PARTS_MAX ||
		descriptor->size % sizeof(struct vring_desc))
		return fault(ring, "an indirect table of an impossible size");
	if (vhost_user_memory_find(ring->memory, descriptor->address, descriptor->size, &table) !=
		descriptor->size)
		return fault(ring, "an indirect table outside of the memory");
	*walk = (struct walk){
		.table = table, .table_size = count, .steps_left = count, .is_indirect = true};
	return 0;
}

/* More than one part when the buffer runs from one region into the next. */
static int add_parts(struct vhost_user_ring *ring, const struct raw_descriptor *descriptor,
	struct iovec *parts, size_t parts_max, struct vhost_user_chain *chain)
{
	uint64_t address = descriptor->address;
	size_t left = descriptor->size;

	if (left == 0)
		return fault(ring, "an empty buffer");
	while (left > 0) {
		uint8_t *bytes;
		size_t size = vhost_user_memory_find(ring->memory, address, left, &bytes);

		if (size == 0)
			return fault(ring, "a buffer outside of the memory");
		if (chain->part_count == parts_max)
			return -ENOBUFS;
		parts[chain->part_count++] = (struct iovec){.iov_base = bytes, .iov_len = size};
		chain->size += size;
		address += size;
		left -= size;
	}
	return 0;
}

static int walk_chain(struct vhost_user_ring *ring, enum vhost_user_access access,
	struct iovec *parts, size_t parts_max, struct vhost_user_chain *chain)
{
	bool shall_write = access == VHOST_USER_WRITE;
	uint32_t index = chain->head;
	struct walk walk = {
		.table = ring->descriptors, .table_size = ring->size, .steps_left = ring->size};

	for (;;) {
		struct raw_descriptor descriptor;
		int error;

		if (index >= walk.table_size)
			return fault(ring, "a descriptor that does not exist");
		if (walk.steps_left-- == 0)
			return fault(ring, "a chain without end");
		descriptor = read_descriptor(&walk, index);
		if (descriptor.flags & VRING_DESC_F_INDIRECT) {
			error = enter_table(ring, &walk, &descriptor);
			if (error)
				return error;
			index = 0;
			continue;
		}
		if (!!(descriptor.flags & VRING_DESC_F_WRITE) != shall_write)
			return fault(ring, "a buffer for the other direction");
		error = add_parts(ring, &descriptor, parts, parts_max, chain);
		if (error)
			return error;
		if (!(descriptor.flags & VRING_DESC_F_NEXT))
			return 0;
		index = descriptor.next;
	}
}

int vhost_user_ring_fetch(struct vhost_user_ring *ring, enum vhost_user_access access,
	struct iovec *parts, size_t parts_max, struct vhost_user_chain *ret_chain)
{
	struct vhost_user_chain chain = {0};
	int error;

	if (ring->seen_avail == ring->next_avail) {
		error = look(ring);
		if (error)
			return error;
	}
	if (ring->seen_avail == ring->next_avail)
		return 0;
	chain.head = load(&ring->avail->ring[ring->next_avail & (ring->size - 1)]);
	error = walk_chain(ring, access, parts, parts_max, &chain);
	if (error)
		return error;
	ring->next_avail++;
	*ret_chain = chain;
	return 1;
}

void vhost_user_ring_use(struct vhost_user_ring *ring, uint16_t head, uint32_t size)
{
	struct vring_used_elem *entry = &ring->used->ring[ring->next_used & (ring->size - 1)];

	__atomic_store_n(&entry->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&entry->len, size, __ATOMIC_RELAXED);
	ring->next_used++;
}

bool vhost_user_ring_publish(struct vhost_user_ring *ring)
{
	uint16_t before = ring->published;

	if (ring->next_used == before)
		return false;
	__atomic_store_n(&ring->used->idx, ring->next_used, __ATOMIC_RELEASE);
	ring->published = ring->next_used;
	/* The guest asks for calls and then looks at the index; we the other way round. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!ring->has_event_index)
		return !(load(&ring->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return vring_need_event(load(used_event(ring)), ring->next_used, before);
}

bool vhost_user_ring_arm(struct vhost_user_ring *ring)
{
	if (ring->has_event_index)
		store(avail_event(ring), ring->next_avail);
	else
		store(&ring->used->flags, 0);
	atomic_thread_fence(memory_order_seq_cst);
	return load(&ring->avail->idx) != ring->next_avail;
}

void vhost_user_ring_disarm(struct vhost_user_ring *ring)
{
	/* With event index, kicks come only for the position that was asked for. */
	if (!ring->has_event_index)
		store(&ring->used->flags, VRING_USED_F_NO_NOTIFY);
}
