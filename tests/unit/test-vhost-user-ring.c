#include "helper/vhost-user-ring.h"

#include "fake-guest.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NEXT     VRING_DESC_F_NEXT
#define WRITE    VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

struct fixture {
	struct fake_guest guest;
	struct vhost_user_ring ring;
	struct iovec parts[VHOST_USER_PARTS_MAX];
	struct vhost_user_chain chain;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	fake_guest_init(&fixture->guest);
	assert_int_equal(vhost_user_ring_init(
				 &fixture->ring, &fixture->guest.memory, &fixture->guest.place, 0),
		0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	fake_guest_done(&fixture->guest);
	free(fixture);
	return 0;
}

static int fetch(struct fixture *fixture, enum vhost_user_access access)
{
	return vhost_user_ring_fetch(
		&fixture->ring, access, fixture->parts, VHOST_USER_PARTS_MAX, &fixture->chain);
}

/* The byte of the guest's memory that a part points to, seen through the other mapping. */
static void assert_part(
	const struct fixture *fixture, size_t part, size_t guest_offset, size_t size)
{
	uint8_t *there = fixture->guest.bytes + guest_offset;

	assert_int_equal(fixture->parts[part].iov_len, size);
	*there = (uint8_t)(*there + 1);
	assert_int_equal(*(uint8_t *)fixture->parts[part].iov_base, *there);
}

static void assert_fault(struct fixture *fixture, enum vhost_user_access access, const char *text)
{
	assert_int_equal(fetch(fixture, access), -EPROTO);
	assert_string_equal(fixture->ring.fault, text);
}

static void test_empty(void **state)
{
	assert_int_equal(fetch(*state, VHOST_USER_READ), 0);
}

static void test_chain(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;

	fake_set(fake_descriptor(guest, 5), FAKE_BUFFERS, 12, NEXT, 2);
	fake_set(fake_descriptor(guest, 2), FAKE_BUFFERS + 0x800, 100, 0, 5);
	fake_give(guest, 5);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	assert_int_equal(fixture->chain.head, 5);
	assert_int_equal(fixture->chain.part_count, 2);
	assert_int_equal(fixture->chain.size, 112);
	assert_part(fixture, 0, FAKE_BUFFERS, 12);
	assert_part(fixture, 1, FAKE_BUFFERS + 0x800, 100);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 0);
}

static void test_indirect(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;

	fake_set(fake_descriptor(guest, 0), FAKE_BUFFERS, 12, NEXT, 1);
	fake_set(fake_descriptor(guest, 1), FAKE_TABLE, 3 * sizeof(struct vring_desc), INDIRECT, 0);
	fake_set(fake_table(guest, 0), FAKE_BUFFERS + 100, 1, NEXT, 2);
	fake_set(fake_table(guest, 2), FAKE_BUFFERS + 200, 2, 0, 0);
	fake_give(guest, 0);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	assert_int_equal(fixture->chain.part_count, 3);
	assert_int_equal(fixture->chain.size, 15);
	assert_part(fixture, 1, FAKE_BUFFERS + 100, 1);
	assert_part(fixture, 2, FAKE_BUFFERS + 200, 2);
}

/* Tables may lie anywhere: nothing says that they are aligned. */
static void test_unaligned_table(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;
	struct vring_desc descriptor;

	fake_set(&descriptor, FAKE_BUFFERS, 99, 0, 0);
	memcpy(guest->bytes + FAKE_TABLE + 3, &descriptor, sizeof(descriptor));
	fake_set(fake_descriptor(guest, 0), FAKE_TABLE + 3, sizeof(descriptor), INDIRECT, 0);
	fake_give(guest, 0);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	assert_int_equal(fixture->chain.size, 99);
}

static void test_buffer_across_regions(void **state)
{
	struct fixture *fixture = *state;

	fake_set(fake_descriptor(&fixture->guest, 0), FAKE_REGION_SIZE - 10, 30, WRITE, 0);
	fake_give(&fixture->guest, 0);
	assert_int_equal(fetch(fixture, VHOST_USER_WRITE), 1);
	assert_int_equal(fixture->chain.part_count, 2);
	assert_int_equal(fixture->chain.size, 30);
	assert_part(fixture, 0, FAKE_REGION_SIZE - 10, 10);
	assert_part(fixture, 1, FAKE_REGION_SIZE, 20);
}

static void test_all_of_the_ring(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;

	for (uint16_t i = 0; i < FAKE_RING_SIZE; i++)
		fake_set(fake_descriptor(guest, i), FAKE_BUFFERS + 16 * i, 16,
			i + 1 < (int)FAKE_RING_SIZE ? NEXT : 0, (uint16_t)(i + 1));
	fake_give(guest, 0);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	assert_int_equal(fixture->chain.part_count, FAKE_RING_SIZE);
}

/* What does not fit now is the next one still. */
static void test_too_many_parts_for_now(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;

	fake_set(fake_descriptor(guest, 0), FAKE_BUFFERS, 12, NEXT, 1);
	fake_set(fake_descriptor(guest, 1), FAKE_BUFFERS, 12, 0, 0);
	fake_give(guest, 0);
	assert_int_equal(vhost_user_ring_fetch(&fixture->ring, VHOST_USER_READ, fixture->parts, 1,
				 &fixture->chain),
		-ENOBUFS);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	assert_int_equal(fixture->chain.part_count, 2);
}

static void test_index_around_the_end(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;

	fake_avail(guest)->idx = 65535;
	assert_int_equal(
		vhost_user_ring_init(&fixture->ring, &guest->memory, &guest->place, 65535), 0);
	fake_set(fake_descriptor(guest, 3), FAKE_BUFFERS, 60, 0, 0);
	for (int i = 0; i < 3; i++)
		fake_give(guest, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
		vhost_user_ring_use(&fixture->ring, 3, 0);
	}
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 0);
	vhost_user_ring_publish(&fixture->ring);
	assert_int_equal(fake_used(guest)->idx, 2);
	assert_int_equal(fake_used(guest)->ring[65535 % FAKE_RING_SIZE].id, 3);
}

/* What a hostile guest tries */

struct attack {
	const char *fault;
	enum vhost_user_access access;
	uint16_t head;
	struct vring_desc descriptors[2];
	struct vring_desc table[2];
};

#define AT(offset) (FAKE_GUEST_BASE + (offset))
#define END        AT(2 * FAKE_REGION_SIZE)

static const struct attack attacks[] = {
	{"a descriptor that does not exist", .head = FAKE_RING_SIZE},
	{"a descriptor that does not exist", .head = 65535},
	{"a descriptor that does not exist",
		.descriptors = {{AT(FAKE_BUFFERS), 1, NEXT, FAKE_RING_SIZE}}},
	{"a chain without end", .descriptors = {{AT(FAKE_BUFFERS), 1, NEXT, 0}}},
	{"a chain without end",
		.descriptors = {{AT(FAKE_BUFFERS), 1, NEXT, 1}, {AT(FAKE_BUFFERS), 1, NEXT, 0}}},
	{"an empty buffer", .descriptors = {{AT(FAKE_BUFFERS), 0, 0, 0}}},
	{"an empty buffer", .descriptors = {{AT(FAKE_BUFFERS), 1, NEXT, 1}, {AT(0), 0, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{END, 1, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{END - 1, 2, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{AT(0) - 1, 2, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{AT(0), UINT32_MAX, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{UINT64_MAX, 1, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{UINT64_MAX - 4, 16, 0, 0}}},
	{"a buffer outside of the memory", .descriptors = {{0, 16, 0, 0}}},
	/* The front-end's own addresses are not the guest's. */
	{"a buffer outside of the memory", .descriptors = {{FAKE_USER_BASE_1, 16, 0, 0}}},
	{"a buffer for the other direction", .descriptors = {{AT(FAKE_BUFFERS), 16, WRITE, 0}}},
	{"a buffer for the other direction", VHOST_USER_WRITE,
		.descriptors = {{AT(FAKE_BUFFERS), 16, 0, 0}}},
	{"a buffer for the other direction", VHOST_USER_WRITE,
		.descriptors = {{AT(FAKE_BUFFERS), 16, WRITE | NEXT, 1},
			{AT(FAKE_BUFFERS), 16, 0, 0}}},
	{"an indirect table where none may be", .descriptors = {{AT(FAKE_TABLE), 16, INDIRECT, 0}},
		.table = {{AT(FAKE_TABLE), 16, INDIRECT, 0}}},
	{"an indirect table that is not the chain's end",
		.descriptors = {{AT(FAKE_TABLE), 16, INDIRECT | NEXT, 1}}},
	{"an indirect table of an impossible size",
		.descriptors = {{AT(FAKE_TABLE), 0, INDIRECT, 0}}},
	{"an indirect table of an impossible size",
		.descriptors = {{AT(FAKE_TABLE), 17, INDIRECT, 0}}},
	{"an indirect table of an impossible size",
		.descriptors = {{AT(FAKE_TABLE), 16 * 1025, INDIRECT, 0}}},
	{"an indirect table of an impossible size",
		.descriptors = {{AT(FAKE_TABLE), UINT32_MAX - 15, INDIRECT, 0}}},
	{"an indirect table outside of the memory", .descriptors = {{END - 15, 16, INDIRECT, 0}}},
	{"an indirect table outside of the memory",
		.descriptors = {{AT(FAKE_REGION_SIZE - 16), 32, INDIRECT, 0}}},
	{"a descriptor that does not exist", .descriptors = {{AT(FAKE_TABLE), 32, INDIRECT, 0}},
		.table = {{AT(FAKE_BUFFERS), 1, NEXT, 2}}},
	{"a chain without end", .descriptors = {{AT(FAKE_TABLE), 32, INDIRECT, 0}},
		.table = {{AT(FAKE_BUFFERS), 1, NEXT, 1}, {AT(FAKE_BUFFERS), 1, NEXT, 0}}},
};

static void test_attacks(void **state)
{
	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		struct fixture *fixture;
		void *own = NULL;

		set_up(&own);
		fixture = own;
		memcpy(fake_descriptor(&fixture->guest, 0), attacks[i].descriptors,
			sizeof(attacks[i].descriptors));
		memcpy(fake_table(&fixture->guest, 0), attacks[i].table, sizeof(attacks[i].table));
		fake_give(&fixture->guest, attacks[i].head);
		assert_fault(fixture, attacks[i].access, attacks[i].fault);
		tear_down(&own);
	}
}

static void test_indirect_not_negotiated(void **state)
{
	struct fixture *fixture = *state;

	fixture->ring.has_indirect = false;
	fake_set(fake_descriptor(&fixture->guest, 0), FAKE_TABLE, 16, INDIRECT, 0);
	fake_set(fake_table(&fixture->guest, 0), FAKE_BUFFERS, 60, 0, 0);
	fake_give(&fixture->guest, 0);
	assert_fault(fixture, VHOST_USER_READ, "an indirect table where none may be");
}

static void test_index_jumps(void **state)
{
	struct fixture *fixture = *state;

	fake_avail(&fixture->guest)->idx = FAKE_RING_SIZE + 1;
	assert_fault(fixture, VHOST_USER_READ, "more buffers given than the queue has room for");
	fake_avail(&fixture->guest)->idx = 65535;
	assert_fault(fixture, VHOST_USER_READ, "more buffers given than the queue has room for");
}

/* Fetched but unused buffers count as given. */
static void test_index_goes_back(void **state)
{
	struct fixture *fixture = *state;

	fake_set(fake_descriptor(&fixture->guest, 0), FAKE_BUFFERS, 60, 0, 0);
	fake_give(&fixture->guest, 0);
	fake_give(&fixture->guest, 0);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	fake_avail(&fixture->guest)->idx = 1;
	assert_fault(fixture, VHOST_USER_READ, "buffers taken back");
}

struct vandal {
	struct fake_guest *guest;
	_Atomic bool is_stopping;
};

static void *vandalise(void *context)
{
	struct vandal *vandal = context;
	unsigned int seed = 1;

	while (!atomic_load_explicit(&vandal->is_stopping, memory_order_relaxed)) {
		struct vring_desc *victim = fake_descriptor(vandal->guest, rand_r(&seed) % 4);
		static const uint64_t addresses[] = {AT(FAKE_BUFFERS), UINT64_MAX - 8, 0};

		__atomic_store_n(&victim->addr, addresses[rand_r(&seed) % 3], __ATOMIC_RELAXED);
		__atomic_store_n(
			&victim->len, rand_r(&seed) % 2 ? 16 : UINT32_MAX, __ATOMIC_RELAXED);
		__atomic_store_n(&victim->next, (uint16_t)rand_r(&seed), __ATOMIC_RELAXED);
		__atomic_store_n(&victim->flags, (uint16_t)(rand_r(&seed) % 8), __ATOMIC_RELAXED);
	}
	return NULL;
}

static void assert_inside(const struct fixture *fixture)
{
	for (size_t i = 0; i < fixture->chain.part_count; i++) {
		const uint8_t *begin = fixture->parts[i].iov_base;
		size_t size = fixture->parts[i].iov_len;
		bool is_inside = false;

		for (size_t j = 0; j < fixture->guest.memory.count; j++) {
			const struct vhost_user_region *region = &fixture->guest.memory.regions[j];

			is_inside |= begin >= region->bytes && size <= FAKE_REGION_SIZE &&
				     begin + size <= region->bytes + FAKE_REGION_SIZE;
		}
		assert_true(is_inside);
	}
}

/* What was checked has to be what is used, though the guest changes it in between. */
static void test_guest_changes_while_we_read(void **state)
{
	struct fixture *fixture = *state;
	struct vandal vandal = {.guest = &fixture->guest};
	pthread_t thread;
	size_t fetched = 0;

	assert_int_equal(pthread_create(&thread, NULL, vandalise, &vandal), 0);
	for (uint16_t i = 0; i < 4; i++)
		fake_give(&fixture->guest, i);
	/* Bounded, in case the other thread is never there at the right time. */
	for (long i = 0; i < 1000000000 && fetched < 1000; i++) {
		fixture->ring.next_avail = 0;
		if (fetch(fixture, VHOST_USER_READ) != 1)
			continue;
		fetched++;
		assert_inside(fixture);
	}
	atomic_store(&vandal.is_stopping, true);
	pthread_join(thread, NULL);
	assert_int_equal(fetched, 1000);
}

/* Telling each other */

static void use_one(struct fixture *fixture)
{
	fake_set(fake_descriptor(&fixture->guest, 1), FAKE_BUFFERS, 60, 0, 0);
	fake_give(&fixture->guest, 1);
	assert_int_equal(fetch(fixture, VHOST_USER_READ), 1);
	vhost_user_ring_use(&fixture->ring, 1, 7);
}

static void test_used_is_seen_when_published(void **state)
{
	struct fixture *fixture = *state;

	use_one(fixture);
	assert_int_equal(fake_used(&fixture->guest)->idx, 0);
	vhost_user_ring_publish(&fixture->ring);
	assert_int_equal(fake_used(&fixture->guest)->idx, 1);
	assert_int_equal(fake_used(&fixture->guest)->ring[0].id, 1);
	assert_int_equal(fake_used(&fixture->guest)->ring[0].len, 7);
}

static void test_call_by_event_index(void **state)
{
	struct fixture *fixture = *state;
	__virtio16 *event = &fake_avail(&fixture->guest)->ring[FAKE_RING_SIZE];

	*event = 1;
	use_one(fixture);
	assert_false(vhost_user_ring_publish(&fixture->ring));
	use_one(fixture);
	assert_true(vhost_user_ring_publish(&fixture->ring));
	use_one(fixture);
	assert_false(vhost_user_ring_publish(&fixture->ring));
	/* One publication that passes the event in its middle. */
	*event = 4;
	use_one(fixture);
	use_one(fixture);
	use_one(fixture);
	assert_true(vhost_user_ring_publish(&fixture->ring));
	assert_false(vhost_user_ring_publish(&fixture->ring));
}

static void test_call_by_flag(void **state)
{
	struct fixture *fixture = *state;

	fixture->ring.has_event_index = false;
	use_one(fixture);
	assert_true(vhost_user_ring_publish(&fixture->ring));
	fake_avail(&fixture->guest)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	use_one(fixture);
	assert_false(vhost_user_ring_publish(&fixture->ring));
}

static void test_kick_by_event_index(void **state)
{
	struct fixture *fixture = *state;
	const struct vring_used *used = fake_used(&fixture->guest);
	const __virtio16 *event = (const __virtio16 *)&used->ring[FAKE_RING_SIZE];

	use_one(fixture);
	assert_false(vhost_user_ring_arm(&fixture->ring));
	assert_int_equal(*event, 1);
	fake_give(&fixture->guest, 1);
	assert_true(vhost_user_ring_arm(&fixture->ring));
}

static void test_kick_by_flag(void **state)
{
	struct fixture *fixture = *state;
	const struct vring_used *used = fake_used(&fixture->guest);

	fixture->ring.has_event_index = false;
	vhost_user_ring_disarm(&fixture->ring);
	assert_int_equal(used->flags, VRING_USED_F_NO_NOTIFY);
	vhost_user_ring_arm(&fixture->ring);
	assert_int_equal(used->flags, 0);
}

/* Where rings may be */

static void assert_place(struct fixture *fixture, int error)
{
	struct vhost_user_ring ring;

	assert_int_equal(
		vhost_user_ring_init(&ring, &fixture->guest.memory, &fixture->guest.place, 0),
		error);
}

static void test_places(void **state)
{
	struct fixture *fixture = *state;
	struct vhost_user_ring_place *place = &fixture->guest.place;
	const struct vhost_user_ring_place good = *place;
	static const uint32_t bad_sizes[] = {0, 3, 24, 65536, UINT32_MAX};

	for (size_t i = 0; i < sizeof(bad_sizes) / sizeof(bad_sizes[0]); i++) {
		place->size = bad_sizes[i];
		assert_place(fixture, -EINVAL);
	}
	*place = good;
	place->descriptors = FAKE_USER_BASE_1 + FAKE_REGION_SIZE - 16 * FAKE_RING_SIZE + 1;
	assert_place(fixture, -EFAULT);
	place->descriptors--;
	assert_place(fixture, 0);
	place->avail = FAKE_GUEST_BASE + FAKE_AVAIL;
	assert_place(fixture, -EFAULT);
	place->avail = good.avail + 1;
	assert_place(fixture, -EINVAL);
	*place = good;
	place->used = good.used + 2;
	assert_place(fixture, -EINVAL);
	place->used = FAKE_USER_BASE_2 + FAKE_REGION_SIZE - 4;
	assert_place(fixture, -EFAULT);
}

/* Memory */

static int add(struct vhost_user_memory *memory, int file, uint64_t guest, uint64_t size,
	uint64_t user, uint64_t offset)
{
	const struct vhost_user_region_description region = {guest, size, user, offset};

	return vhost_user_memory_add(memory, &region, dup(file));
}

static void test_bad_regions(void **state)
{
	struct fixture *fixture = *state;
	struct fake_guest *guest = &fixture->guest;
	int file = guest->file;
	int pipes[2];

	assert_int_equal(add(&guest->memory, file, 0, 0, 0, 0), -EINVAL);
	assert_int_equal(add(&guest->memory, file, UINT64_MAX, 4096, 0, 0), -EINVAL);
	assert_int_equal(add(&guest->memory, file, 0, 4096, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(add(&guest->memory, file, 0, 4096, 0, UINT64_MAX), -EINVAL);
	/* Behind the file's end there would be a signal. */
	assert_int_equal(add(&guest->memory, file, 0, 4096, 0, 2 * FAKE_REGION_SIZE), -EINVAL);
	assert_int_equal(add(&guest->memory, file, 0, 2 * FAKE_REGION_SIZE + 1, 0, 0), -EINVAL);
	assert_int_equal(add(&guest->memory, file, AT(4096), 4096, 0, 0), -EEXIST);
	assert_int_equal(add(&guest->memory, file, AT(0) - 1, 4096, 0, 0), -EEXIST);
	assert_int_equal(add(&guest->memory, file, 0, 4096, FAKE_USER_BASE_2 + 1, 0), -EEXIST);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(add(&guest->memory, pipes[0], 0, 4096, 0, 0), -EINVAL);
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(guest->memory.count, 2);
}

static void test_table_is_full(void **state)
{
	struct fixture *fixture = *state;
	struct vhost_user_memory *memory = &fixture->guest.memory;
	int file = fixture->guest.file;

	for (uint64_t i = memory->count; i < VHOST_USER_REGIONS_MAX; i++)
		assert_int_equal(add(memory, file, i << 40, 4096, i << 40, 0), 0);
	assert_int_equal(add(memory, file, 1ull << 50, 4096, 1ull << 50, 0), -ENOSPC);
}

static void test_remove(void **state)
{
	struct fixture *fixture = *state;
	struct vhost_user_memory *memory = &fixture->guest.memory;
	struct vhost_user_region_description region = memory->regions[0].description;
	uint8_t *bytes;

	assert_int_equal(vhost_user_memory_find(memory, AT(0), 1, &bytes), 1);
	region.mmap_offset = 77; /* does not count */
	assert_int_equal(vhost_user_memory_remove(memory, &region), 0);
	assert_int_equal(vhost_user_memory_find(memory, AT(0), 1, &bytes), 0);
	assert_int_equal(vhost_user_memory_find(memory, AT(FAKE_REGION_SIZE), 1, &bytes), 1);
	assert_int_equal(vhost_user_memory_remove(memory, &region), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_empty),
		TEST(test_chain),
		TEST(test_indirect),
		TEST(test_unaligned_table),
		TEST(test_buffer_across_regions),
		TEST(test_all_of_the_ring),
		TEST(test_too_many_parts_for_now),
		TEST(test_index_around_the_end),
		cmocka_unit_test(test_attacks),
		TEST(test_indirect_not_negotiated),
		TEST(test_index_jumps),
		TEST(test_index_goes_back),
		TEST(test_guest_changes_while_we_read),
		TEST(test_used_is_seen_when_published),
		TEST(test_call_by_event_index),
		TEST(test_call_by_flag),
		TEST(test_kick_by_event_index),
		TEST(test_kick_by_flag),
		TEST(test_places),
		TEST(test_bad_regions),
		TEST(test_table_is_full),
		TEST(test_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
