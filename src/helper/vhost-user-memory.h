/*
 * The VM's memory as its front-end shares it: regions of files, mapped here, and the way from an
 * address of the guest to a pointer. Every address is the guest's word and nothing more, so the
 * only way to a pointer leads through these functions.
 *
 * A guest can't shrink a mapped file; only the front-end could. Reading behind the end of such a
 * file raises SIGBUS and ends this process. That is left so: the helper serves that one VM, whose
 * own program cut its memory away, and copies of frames (readv, writev) merely fail with EFAULT.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* QEMU uses three or four for a VM, and one more for each hot-plugged piece of memory. */
#define VHOST_USER_REGIONS_MAX 64

/* A region as the messages describe it (vhost-user: "Memory region description"). Bytes. */
struct vhost_user_region_description {
	uint64_t guest_address; /* as descriptors name it */
	uint64_t size;
	uint64_t user_address; /* as SET_VRING_ADDR names it */
	uint64_t mmap_offset;  /* where it begins in the file */
};

struct vhost_user_region {
	struct vhost_user_region_description description;
	uint8_t *bytes; /* its first byte, in the mapping */
	void *mapping;
	size_t mapping_size;
};

/* Read by the queues' threads; changed only while none of them runs. */
struct vhost_user_memory {
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
	size_t count;
};

/* Unmaps every region. Accepts a zeroed table, and leaves one. */
void vhost_user_memory_done(struct vhost_user_memory *memory);

/*
 * Maps one region. fd is closed in any case: the mapping does not need it. -ENOSPC when the table
 * is full, -EINVAL for sizes that wrap around, are zero or exceed the file, or a fd that is no
 * file, -EEXIST when it overlaps another region, or the errno of mmap(2).
 */
int vhost_user_memory_add(struct vhost_user_memory *memory,
	const struct vhost_user_region_description *description, int fd);

/* Unmaps the region with these addresses and this size; its offset does not count. -ENOENT. */
int vhost_user_memory_remove(
	struct vhost_user_memory *memory, const struct vhost_user_region_description *description);

/*
 * Finds a guest's address. Returns how many of size bytes lie there in one piece, at *ret_bytes; 0
 * when the address is in no region. What is missing may go on in another region.
 */
size_t vhost_user_memory_find(const struct vhost_user_memory *memory, uint64_t guest_address,
	size_t size, uint8_t **ret_bytes);

/* The size bytes at a front-end's own address; NULL when they aren't wholly in one region. */
uint8_t *vhost_user_memory_find_user(
	const struct vhost_user_memory *memory, uint64_t user_address, size_t size);
