/*
 * A hostile guest and a broken front-end: rings and descriptors of any bytes, and any messages.
 * The TAP is a datagram socket, its ioctls do nothing.
 *
 * Input: one byte that chooses what is driven, four of settings, then
 *   rings and queues: the avail index (2 bytes), eight heads (1 byte each), and descriptors, which
 *   are put into the ring's table and into an indirect one;
 *   messages: how much of the memory is given (2 bytes) and these bytes, and then messages: type,
 *   flags (low half: the header's; high half: fds that come along), size, payload.
 */
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "helper/vhost-user-protocol.h"
#include "helper/vhost-user-queue.h"
#include "helper/vhost-user.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MEMORY_SIZE 0x10000u
#define REGION_SIZE (MEMORY_SIZE / 2)
#define USER_BASE   0x100000u
/* The used ring lies where no buffer and no other part of the ring is: else the device would write
 * its own input for ever. */
#define AVAIL_AT 0x2000u
#define TABLE_AT 0x3000u
#define USED_AT  0x6000u
#define HEADS    8
#define SETTINGS 4

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static int memory_file;
static uint8_t *memory_bytes;

static void insist(bool condition)
{
	if (!condition)
		abort();
}

/* Instead of the TAP's. */
int ioctl(int fd, unsigned long request, ...)
{
	return 0;
}

/* The queue whose work this thread does itself. */
static __thread struct vhost_user_queue *driven_queue;

/* Who would wait for ever is told to stop. */
int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	const struct timespec limit = {.tv_nsec = timeout_ms > 0 ? timeout_ms * 1000000l : 0};
	int found;

	if (!driven_queue)
		return ppoll(fds, count, timeout_ms < 0 ? NULL : &limit, NULL);
	found = ppoll(fds, count, &(const struct timespec){0}, NULL);
	if (found == 0 && timeout_ms < 0)
		atomic_store(&driven_queue->is_stopping, true);
	return found;
}

/* forward.c's, which isn't driven here. */
const char *direction_name(enum direction direction)
{
	return direction == DIRECTION_HOST_TO_VM ? "host->vm" : "vm->host";
}

static void prepare_memory(void)
{
	if (!memory_bytes) {
		memory_file = memfd_create("fuzz", MFD_CLOEXEC);
		insist(ftruncate(memory_file, MEMORY_SIZE) == 0);
		memory_bytes =
			mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file, 0);
		insist(memory_bytes != MAP_FAILED);
	}
	memset(memory_bytes, 0, MEMORY_SIZE);
}

/* Two regions that touch: guest addresses from 0 on, so that small numbers mean something. */
static void map_memory(struct vhost_user_memory *memory)
{
	for (uint64_t i = 0; i < 2; i++) {
		const struct vhost_user_region_description region = {
			.guest_address = i * REGION_SIZE,
			.size = REGION_SIZE,
			.user_address = USER_BASE + i * 2 * REGION_SIZE,
			.mmap_offset = i * REGION_SIZE,
		};

		insist(vhost_user_memory_add(memory, &region, dup(memory_file)) == 0);
	}
}

static void write_ring(const uint8_t *bytes, size_t size, uint32_t ring_size)
{
	struct vring_avail *avail = (struct vring_avail *)(memory_bytes + AVAIL_AT);
	size_t descriptors;

	if (size < 2 + HEADS)
		return;
	memcpy(&avail->idx, bytes, 2);
	for (uint32_t i = 0; i < ring_size; i++)
		avail->ring[i] = bytes[2 + i % HEADS];
	bytes += 2 + HEADS;
	size -= 2 + HEADS;
	descriptors = size < AVAIL_AT ? size : AVAIL_AT;
	memcpy(memory_bytes, bytes, descriptors);
	memcpy(memory_bytes + TABLE_AT, bytes, descriptors);
}

static struct vhost_user_ring_place place(const uint8_t *settings)
{
	return (struct vhost_user_ring_place){
		.size = 1u << settings[0] % 10,
		.descriptors = USER_BASE,
		.avail = USER_BASE + AVAIL_AT,
		.used = USER_BASE + USED_AT,
		.has_event_index = settings[1] & 1,
		.has_indirect = settings[1] & 2,
	};
}

static void insist_inside(const struct vhost_user_memory *memory, const struct iovec *part)
{
	const uint8_t *begin = part->iov_base;
	bool is_inside = false;

	for (size_t i = 0; i < memory->count; i++) {
		const uint8_t *region = memory->regions[i].bytes;

		is_inside |= begin >= region && part->iov_len > 0 && part->iov_len <= REGION_SIZE &&
			     begin + part->iov_len <= region + REGION_SIZE;
	}
	insist(is_inside);
}

static void drive_ring(const uint8_t *settings, const uint8_t *bytes, size_t size)
{
	static struct iovec parts[VHOST_USER_PARTS_MAX];
	const struct vhost_user_ring_place where = place(settings);
	const size_t parts_max = settings[2] & 1 ? 3 : VHOST_USER_PARTS_MAX;
	struct vhost_user_memory memory = {0};
	struct vhost_user_ring ring = {0};
	struct vhost_user_chain chain;

	map_memory(&memory);
	write_ring(bytes, size, where.size);
	insist(vhost_user_ring_init(&ring, &memory, &where, 0) == 0);
	while (vhost_user_ring_fetch(&ring, settings[2] & 2 ? VHOST_USER_READ : VHOST_USER_WRITE,
		       parts, parts_max, &chain) == 1) {
		uint64_t sum = 0;

		insist(chain.part_count >= 1 && chain.part_count <= parts_max);
		for (size_t i = 0; i < chain.part_count; i++) {
			insist_inside(&memory, &parts[i]);
			sum += parts[i].iov_len;
		}
		insist(sum == chain.size);
		vhost_user_ring_use(&ring, chain.head, 1);
		(void)vhost_user_ring_publish(&ring);
	}
	vhost_user_memory_done(&memory);
}

static void send_frames(int socket, const uint8_t *settings)
{
	static const uint8_t frame[VHOST_USER_HEADER_SIZE + VHOST_USER_FRAME_MAX];

	for (int i = 0; i < settings[3] % 8; i++)
		(void)send(socket, frame, (size_t)(settings[3] * (i + 1) * 37) % sizeof(frame), 0);
}

static void set_up_queue(struct vhost_user_queue *queue, const uint8_t *settings)
{
	queue->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	queue->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	queue->place = place(settings);
	queue->is_enabled = !(settings[1] & 4);
	queue->has_merging = settings[1] & 8;
	queue->header_size = settings[1] & 16 && !queue->has_merging ? VHOST_USER_LEGACY_HEADER_SIZE
								     : VHOST_USER_HEADER_SIZE;
	queue->frame_max = settings[1] & 32 ? VHOST_USER_FRAME_MAX : 1518;
}

/* A queue's whole work, in this thread: it stops where it would wait for what never comes. */
static void drive_queue(const uint8_t *settings, const uint8_t *bytes, size_t size)
{
	enum direction direction = settings[2] & 1 ? DIRECTION_HOST_TO_VM : DIRECTION_VM_TO_HOST;
	struct vhost_user_memory memory = {0};
	struct vhost_user_queue queue;
	int ends[2];
	int result;

	map_memory(&memory);
	insist(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	insist(vhost_user_queue_init(&queue, direction, ends[0], -1) == 0);
	set_up_queue(&queue, settings);
	write_ring(bytes, size, queue.place.size);
	insist(vhost_user_ring_init(&queue.ring, &memory, &queue.place, 0) == 0);
	send_frames(ends[1], settings);
	driven_queue = &queue;
	result = direction == DIRECTION_HOST_TO_VM ? vhost_user_queue_fill(&queue)
						   : vhost_user_queue_drain(&queue);
	driven_queue = NULL;
	insist(result == 0 || result == -EPROTO);
	insist((result == -EPROTO) == (queue.ring.fault != NULL));
	vhost_user_queue_publish(&queue);
	vhost_user_queue_done(&queue);
	fd_close(ends[0]);
	fd_close(ends[1]);
	vhost_user_memory_done(&memory);
}

/* Everything the device does with what has come; false when it has ended. */
static bool dispatch_all(struct vhost_user *device)
{
	char reason[VHOST_USER_REASON_SIZE];

	for (int i = 0; i < 8; i++) {
		struct pollfd fds[VHOST_USER_FDS];
		enum vhost_user_news news;

		vhost_user_fill(device, fds);
		if (poll(fds, VHOST_USER_FDS, 0) <= 0)
			return true;
		news = vhost_user_dispatch(device, fds, reason);
		insist((news != VHOST_USER_NOTHING) == (reason[0] != '\0'));
		insist(strlen(reason) < VHOST_USER_REASON_SIZE);
		insist((news == VHOST_USER_ENDED) == (vhost_user_result(device) != 0));
		if (news == VHOST_USER_ENDED)
			return false;
	}
	return true;
}

/* A message with as many bytes and fds as the input says. Returns what is left of the input. */
static size_t send_message(int front, const uint8_t *bytes, size_t size)
{
	uint32_t payload_size = bytes[2];
	const struct vhost_user_header header = {
		.request = bytes[0], .flags = bytes[1] & 0xf, .size = payload_size};
	uint8_t message[sizeof(header) + UINT8_MAX] = {0};
	int fds[FD_PASS_MAX];
	size_t fd_count = bytes[1] >> 4;
	size_t available = size - 3 < payload_size ? size - 3 : payload_size;

	for (size_t i = 0; i < fd_count; i++) {
		bool is_memory = header.request == VHOST_USER_SET_MEM_TABLE ||
				 header.request == VHOST_USER_ADD_MEM_REG;

		fds[i] = is_memory ? dup(memory_file) : eventfd(1, EFD_CLOEXEC);
	}
	memcpy(message, &header, sizeof(header));
	memcpy(message + sizeof(header), bytes + 3, available);
	(void)fd_send(front, message, sizeof(header) + payload_size, fds, fd_count);
	for (size_t i = 0; i < fd_count; i++)
		fd_close(fds[i]);
	return size - 3 - available;
}

static void drive_messages(const uint8_t *settings, const uint8_t *bytes, size_t size)
{
	size_t queue_pairs = 1 + settings[0] % 2;
	struct vhost_user *device = NULL;
	int taps[2], tap_ends[2], ends[2];
	char answers[1024];
	size_t given;

	if (size < 2)
		return;
	given = bytes[0] | (size_t)bytes[1] << 8;
	given = given < size - 2 ? given : size - 2;
	memcpy(memory_bytes, bytes + 2, given);
	bytes += 2 + given;
	size -= 2 + given;
	insist(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	insist(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, tap_ends) == 0);
	send_frames(tap_ends[1], settings);
	taps[0] = tap_ends[0];
	taps[1] = dup(tap_ends[0]);
	if (queue_pairs == 1)
		fd_close(taps[1]);
	insist(vhost_user_open(ends[0], taps, queue_pairs, 1500, &device) == 0);
	while (size >= 3 && dispatch_all(device)) {
		size_t left = send_message(ends[1], bytes, size);

		bytes += size - left;
		size = left;
		(void)recv(ends[1], answers, sizeof(answers), 0);
		send_frames(tap_ends[1], settings);
	}
	fd_close(ends[1]);
	if (vhost_user_result(device) == 0)
		(void)dispatch_all(device);
	vhost_user_close(device);
	fd_close(tap_ends[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static void (*const drivers[])(const uint8_t *, const uint8_t *, size_t) = {
		drive_ring,
		drive_queue,
		drive_messages,
	};

	if (size < 1 + SETTINGS)
		return 0;
	prepare_memory();
	drivers[bytes[0] % array_length(drivers)](
		bytes + 1, bytes + 1 + SETTINGS, size - 1 - SETTINGS);
	return 0;
}
