#include "helper/vhost-user-memory.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void unmap(struct vhost_user_region *region)
{
	munmap(region->mapping, region->mapping_size);
}

void vhost_user_memory_done(struct vhost_user_memory *memory)
{
	for (size_t i = 0; i < memory->count; i++)
		unmap(&memory->regions[i]);
	*memory = (struct vhost_user_memory){0};
}

static bool ranges_overlap(
	uint64_t first, uint64_t first_size, uint64_t second, uint64_t second_size)
{
	return first < second ? second - first < first_size : first - second < second_size;
}

static int check_description(
	const struct vhost_user_memory *memory, const struct vhost_user_region_description *new)
{
	uint64_t end;

	if (new->size == 0 || __builtin_add_overflow(new->guest_address, new->size, &end) ||
		__builtin_add_overflow(new->user_address, new->size, &end) ||
		__builtin_add_overflow(new->mmap_offset, new->size, &end) || end > PTRDIFF_MAX)
		return -EINVAL;
	for (size_t i = 0; i < memory->count; i++) {
		const struct vhost_user_region_description *old = &memory->regions[i].description;

		if (ranges_overlap(old->guest_address, old->size, new->guest_address, new->size) ||
			ranges_overlap(old->user_address, old->size, new->user_address, new->size))
			return -EEXIST;
	}
	return 0;
}

/* How much to map so that description's bytes are in it. hugetlbfs unmaps whole huge pages only,
 * whose size it tells as the block size. */
static int measure(
	int fd, const struct vhost_user_region_description *description, size_t *ret_mapping_size)
{
	uint64_t end = description->mmap_offset + description->size;
	struct stat status;
	uint64_t page;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode) || status.st_size < 0 || end > (uint64_t)status.st_size)
		return -EINVAL;
	page = status.st_blksize > 0 ? (uint64_t)status.st_blksize : 1;
	*ret_mapping_size = (end + page - 1) / page * page;
	return 0;
}

int vhost_user_memory_add(struct vhost_user_memory *memory,
	const struct vhost_user_region_description *description, int fd)
{
	cleanup_fd int file = fd;
	struct vhost_user_region region = {.description = *description};
	int error;

	if (memory->count == VHOST_USER_REGIONS_MAX)
		return -ENOSPC;
	error = check_description(memory, description);
	if (error)
		return error;
	error = measure(file, description, &region.mapping_size);
	if (error)
		return error;
	/* From the file's start, because an offset would have to be a multiple of huge pages. */
	region.mapping = mmap(NULL, region.mapping_size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_NORESERVE, file, 0);
	if (region.mapping == MAP_FAILED)
		return -errno;
	/* The guest's memory has no place in this program's core dump. */
	madvise(region.mapping, region.mapping_size, MADV_DONTDUMP);
	region.bytes = (uint8_t *)region.mapping + description->mmap_offset;
	memory->regions[memory->count++] = region;
	return 0;
}

int vhost_user_memory_remove(
	struct vhost_user_memory *memory, const struct vhost_user_region_description *description)
{
	for (size_t i = 0; i < memory->count; i++) {
		struct vhost_user_region *region = &memory->regions[i];
		const struct vhost_user_region_description *old = &region->description;

		if (old->guest_address != description->guest_address ||
			old->user_address != description->user_address ||
			old->size != description->size)
			continue;
		unmap(region);
		*region = memory->regions[--memory->count];
		return 0;
	}
	return -ENOENT;
}

size_t vhost_user_memory_find(const struct vhost_user_memory *memory, uint64_t guest_address,
	size_t size, uint8_t **ret_bytes)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct vhost_user_region *region = &memory->regions[i];
		uint64_t offset = guest_address - region->description.guest_address;

		if (offset >= region->description.size)
			continue;
		*ret_bytes = region->bytes + offset;
		return size < region->description.size - offset
			       ? size
			       : (size_t)(region->description.size - offset);
	}
	return 0;
}

uint8_t *vhost_user_memory_find_user(
	const struct vhost_user_memory *memory, uint64_t user_address, size_t size)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct vhost_user_region *region = &memory->regions[i];
		uint64_t offset = user_address - region->description.user_address;

		if (offset < region->description.size && size <= region->description.size - offset)
			return region->bytes + offset;
	}
	return NULL;
}
