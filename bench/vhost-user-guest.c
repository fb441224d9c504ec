/*
 * A vhost-user front-end with the least guest there can be, so that a helper is measured without an
 * emulator: what comes out of a new TAP of the namespace it runs in goes into the rings, what comes
 * out of the rings goes into the TAP. The namespace then plays the VM. One thread a direction.
 *
 *     vhost-user-guest SOCKET TAP [MAC]
 *
 * The TAP is up, and "ready" on stdout, when frames pass. Ends with the connection, or at a signal.
 * Not checked here is what the back-end writes into the rings: it is ours.
 */
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "helper/vhost-user-protocol.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>

#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

/* As QEMU and a Linux guest do it: 256 entries, and a page for each buffer that is received. */
#define RING_SIZE         256
#define FILL_BUFFER_SIZE  4096
#define DRAIN_BUFFER_SIZE (68 * 1024)
#define HEADER_SIZE       sizeof(struct virtio_net_hdr_mrg_rxbuf)
/* What the spent buffers of vm->host are collected for at once. */
#define RECLAIM_BATCH 64

#define GUEST_BASE 0x100000000ull /* guest addresses are not ours, to show mistakes */

enum ring_index {
	RING_FILL,  /* host->vm */
	RING_DRAIN, /* vm->host */
	RING_COUNT,
};

struct ring_memory {
	struct vring_desc descriptors[RING_SIZE];
	struct {
		__virtio16 flags, index, entries[RING_SIZE], used_event;
	} avail;
	struct {
		__virtio16 flags, index;
		struct vring_used_elem entries[RING_SIZE];
		__virtio16 avail_event;
	} used __attribute__((aligned(64)));
} __attribute__((aligned(4096)));

struct guest_memory {
	struct ring_memory rings[RING_COUNT];
	uint8_t fill_buffers[RING_SIZE][FILL_BUFFER_SIZE];
	uint8_t drain_buffers[RING_SIZE][DRAIN_BUFFER_SIZE];
};

struct ring {
	struct ring_memory *memory;
	uint16_t next_avail; /* given to the device and not yet shown */
	uint16_t shown;
	uint16_t next_used; /* taken back */
	int kick, call;
};

struct guest {
	int connection;
	int tap;
	int memory_file;
	struct guest_memory *memory;
	struct ring rings[RING_COUNT];
};

static uint64_t guest_address(const struct guest *guest, const void *pointer)
{
	return GUEST_BASE + (uint64_t)((const uint8_t *)pointer - (const uint8_t *)guest->memory);
}

/* Messages */

static void send_message(
	const struct guest *guest, uint32_t request, const void *payload, uint32_t size, int fd)
{
	struct vhost_user_header header = {
		.request = request, .flags = VHOST_USER_VERSION, .size = size};
	uint8_t bytes[sizeof(header) + sizeof(union vhost_user_payload)];
	ssize_t sent;

	memcpy(bytes, &header, sizeof(header));
	if (size > 0)
		memcpy(bytes + sizeof(header), payload, size);
	sent = fd_send(guest->connection, bytes, sizeof(header) + size, &fd, fd >= 0);
	if (sent != (ssize_t)(sizeof(header) + size))
		errx(1, "the back-end has gone");
}

static uint64_t ask(const struct guest *guest, uint32_t request)
{
	struct {
		struct vhost_user_header header;
		uint64_t number;
	} __attribute__((packed)) reply;

	send_message(guest, request, NULL, 0, -1);
	if (recv(guest->connection, &reply, sizeof(reply), MSG_WAITALL) != sizeof(reply))
		errx(1, "the back-end has gone");
	return reply.number;
}

static void send_number(const struct guest *guest, uint32_t request, uint64_t number, int fd)
{
	send_message(guest, request, &number, sizeof(number), fd);
}

static void send_state(const struct guest *guest, uint32_t request, uint32_t index, uint32_t number)
{
	struct vhost_user_ring_state state = {.index = index, .number = number};

	send_message(guest, request, &state, sizeof(state), -1);
}

static void send_memory(const struct guest *guest)
{
	struct vhost_user_memory_table table = {
		.count = 1,
		.regions[0] = {.guest_address = GUEST_BASE,
			.size = sizeof(*guest->memory),
			.user_address = (uintptr_t)guest->memory},
	};

	send_message(guest, VHOST_USER_SET_MEM_TABLE, &table,
		offsetof(struct vhost_user_memory_table, regions[1]), guest->memory_file);
}

static void send_ring(const struct guest *guest, uint32_t index)
{
	const struct ring *ring = &guest->rings[index];
	struct vhost_user_ring_address address = {
		.index = index,
		.descriptors = (uintptr_t)ring->memory->descriptors,
		.avail = (uintptr_t)&ring->memory->avail,
		.used = (uintptr_t)&ring->memory->used,
	};

	send_state(guest, VHOST_USER_SET_VRING_NUM, index, RING_SIZE);
	send_state(guest, VHOST_USER_SET_VRING_BASE, index, 0);
	send_message(guest, VHOST_USER_SET_VRING_ADDR, &address, sizeof(address), -1);
	send_number(guest, VHOST_USER_SET_VRING_CALL, index, ring->call);
	send_number(guest, VHOST_USER_SET_VRING_KICK, index, ring->kick);
	send_state(guest, VHOST_USER_SET_VRING_ENABLE, index, 1);
}

static void introduce(const struct guest *guest)
{
	const uint64_t wanted = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX |
				1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_NET_F_CSUM |
				1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 |
				1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN |
				1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 |
				1ull << VIRTIO_NET_F_HOST_ECN |
				1ull << VHOST_USER_F_PROTOCOL_FEATURES;
	uint64_t offered = ask(guest, VHOST_USER_GET_FEATURES);

	if ((offered & wanted) != wanted)
		errx(1, "the back-end lacks features 0x%llx",
			(unsigned long long)(wanted & ~offered));
	(void)ask(guest, VHOST_USER_GET_PROTOCOL_FEATURES);
	send_number(guest, VHOST_USER_SET_PROTOCOL_FEATURES, 0, -1);
	send_message(guest, VHOST_USER_SET_OWNER, NULL, 0, -1);
	send_number(guest, VHOST_USER_SET_FEATURES, wanted, -1);
	send_memory(guest);
	for (uint32_t index = 0; index < RING_COUNT; index++)
		send_ring(guest, index);
	/* Answered when everything before was done. */
	(void)ask(guest, VHOST_USER_GET_FEATURES);
}

/* Rings, from the driver's side (virtio 1.2, 2.7) */

static uint16_t used_index(const struct ring *ring)
{
	return __atomic_load_n(&ring->memory->used.index, __ATOMIC_ACQUIRE);
}

/* Gives descriptor, whose address stands since the beginning, to the device; shown later. */
static void give(struct ring *ring, uint16_t descriptor)
{
	ring->memory->avail.entries[ring->next_avail++ % RING_SIZE] = descriptor;
}

static void show(struct ring *ring)
{
	uint16_t before = ring->shown;
	uint16_t event;

	if (ring->next_avail == before)
		return;
	__atomic_store_n(&ring->memory->avail.index, ring->next_avail, __ATOMIC_RELEASE);
	ring->shown = ring->next_avail;
	atomic_thread_fence(memory_order_seq_cst);
	event = __atomic_load_n(&ring->memory->used.avail_event, __ATOMIC_RELAXED);
	if (vring_need_event(event, ring->next_avail, before))
		eventfd_write(ring->kick, 1);
}

static void wait_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	poll(&poll_fd, 1, -1);
}

/* Waits until the device has used count buffers that weren't taken back. */
static void wait_for_used(struct ring *ring, uint16_t count)
{
	eventfd_t ignored;

	while ((uint16_t)(used_index(ring) - ring->next_used) < count) {
		__atomic_store_n(&ring->memory->avail.used_event,
			(uint16_t)(ring->next_used + count - 1), __ATOMIC_RELAXED);
		atomic_thread_fence(memory_order_seq_cst);
		if ((uint16_t)(used_index(ring) - ring->next_used) >= count)
			return;
		/* The back-end makes the event nonblocking, for itself and thereby for us. */
		wait_readable(ring->call);
		eventfd_read(ring->call, &ignored);
	}
}

static const struct vring_used_elem *take_used(struct ring *ring)
{
	return &ring->memory->used.entries[ring->next_used++ % RING_SIZE];
}

/* Directions */

/* One frame, from as many buffers as its header says, to the TAP; and the buffers back. */
static void take_frame(struct guest *guest)
{
	struct ring *ring = &guest->rings[RING_FILL];
	struct iovec parts[RING_SIZE];
	uint16_t count = 1;

	for (uint16_t i = 0; i < count; i++) {
		const struct vring_used_elem *element = take_used(ring);
		uint8_t *buffer = guest->memory->fill_buffers[element->id];

		if (i == 0)
			memcpy(&count,
				buffer + offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers),
				sizeof(count));
		parts[i] = (struct iovec){.iov_base = buffer, .iov_len = element->len};
		give(ring, (uint16_t)element->id);
	}
	/* What this TAP does not take is lost, as in a guest. */
	(void)!writev(guest->tap, parts, count);
}

static void *run_fill(void *context)
{
	struct guest *guest = context;
	struct ring *ring = &guest->rings[RING_FILL];
	uint16_t since = 0;

	for (;;) {
		wait_for_used(ring, 1);
		while (used_index(ring) != ring->next_used) {
			take_frame(guest);
			/* Linux gives half a ring back at once. */
			if (++since % 16 == 0)
				show(ring);
		}
		show(ring);
	}
	return NULL;
}

/* Reads one frame into a free buffer; false when there is none now. */
static bool send_frame(struct guest *guest, uint16_t descriptor)
{
	struct ring *ring = &guest->rings[RING_DRAIN];
	ssize_t size =
		read(guest->tap, guest->memory->drain_buffers[descriptor], DRAIN_BUFFER_SIZE);

	if (size < 0 && errno != EAGAIN)
		err(1, "TAP");
	if (size < 0)
		return false;
	ring->memory->descriptors[descriptor].len = (uint32_t)size;
	give(ring, descriptor);
	return true;
}

static void *run_drain(void *context)
{
	struct guest *guest = context;
	struct ring *ring = &guest->rings[RING_DRAIN];
	uint16_t free_entries[RING_SIZE];
	size_t free_count = RING_SIZE;

	for (uint16_t i = 0; i < RING_SIZE; i++)
		free_entries[i] = i;
	for (;;) {
		if (free_count == 0)
			wait_for_used(ring, RECLAIM_BATCH);
		while (used_index(ring) != ring->next_used)
			free_entries[free_count++] = (uint16_t)take_used(ring)->id;
		for (size_t sent = 0; free_count > 0 && sent < 16; sent++) {
			if (!send_frame(guest, free_entries[free_count - 1])) {
				show(ring);
				wait_readable(guest->tap);
				break;
			}
			free_count--;
		}
		show(ring);
	}
	return NULL;
}

/* Start */

static void make_memory(struct guest *guest)
{
	guest->memory_file = memfd_create("guest", MFD_CLOEXEC);
	if (guest->memory_file < 0 || ftruncate(guest->memory_file, sizeof(*guest->memory)) < 0)
		err(1, "memory");
	guest->memory = mmap(NULL, sizeof(*guest->memory), PROT_READ | PROT_WRITE, MAP_SHARED,
		guest->memory_file, 0);
	if (guest->memory == MAP_FAILED)
		err(1, "memory");
	for (size_t i = 0; i < RING_COUNT; i++) {
		guest->rings[i].memory = &guest->memory->rings[i];
		guest->rings[i].kick = eventfd(0, EFD_CLOEXEC);
		guest->rings[i].call = eventfd(0, EFD_CLOEXEC);
	}
	for (uint16_t i = 0; i < RING_SIZE; i++) {
		guest->rings[RING_FILL].memory->descriptors[i] = (struct vring_desc){
			.addr = guest_address(guest, guest->memory->fill_buffers[i]),
			.len = FILL_BUFFER_SIZE,
			.flags = VRING_DESC_F_WRITE,
		};
		guest->rings[RING_DRAIN].memory->descriptors[i] = (struct vring_desc){
			.addr = guest_address(guest, guest->memory->drain_buffers[i]),
		};
		give(&guest->rings[RING_FILL], i);
	}
}

static void set_mac(const char *name, const char *text)
{
	struct ifreq request = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
	unsigned char *mac = (unsigned char *)request.ifr_hwaddr.sa_data;
	cleanup_fd int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
		    &mac[4], &mac[5]) != 6 ||
		ioctl(any, SIOCSIFHWADDR, &request) < 0)
		err(1, "MAC %s", text);
}

static void set_up(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_UP};
	cleanup_fd int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(any, SIOCSIFFLAGS, &request) < 0)
		err(1, "%s", name);
}

static void open_tap(struct guest *guest, const char *name, const char *mac)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	int header_size = HEADER_SIZE;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	guest->tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (guest->tap < 0 || ioctl(guest->tap, TUNSETIFF, &request) < 0 ||
		ioctl(guest->tap, TUNSETVNETHDRSZ, &header_size) < 0 ||
		ioctl(guest->tap, TUNSETOFFLOAD, offloads) < 0)
		err(1, "TAP %s", name);
	if (mac)
		set_mac(name, mac);
	set_up(name);
}

static void connect_to(struct guest *guest, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	guest->connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (guest->connection < 0 ||
		connect(guest->connection, (const struct sockaddr *)&address, sizeof(address)) < 0)
		err(1, "%s", path);
}

int main(int argc, char **argv)
{
	static struct guest guest;
	pthread_t threads[RING_COUNT];
	char byte;

	if (argc < 3 || argc > 4)
		errx(1, "Usage: %s SOCKET TAP [MAC]", argv[0]);
	connect_to(&guest, argv[1]);
	open_tap(&guest, argv[2], argv[3]);
	make_memory(&guest);
	introduce(&guest);
	show(&guest.rings[RING_FILL]);
	if (pthread_create(&threads[RING_FILL], NULL, run_fill, &guest) ||
		pthread_create(&threads[RING_DRAIN], NULL, run_drain, &guest))
		errx(1, "threads");
	puts("ready");
	fflush(stdout);
	if (recv(guest.connection, &byte, 1, 0) <= 0)
		errx(1, "the back-end has gone");
	return 0;
}
