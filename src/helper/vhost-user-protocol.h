/*
 * The messages of the vhost-user protocol, as a back-end receives them (QEMU:
 * docs/interop/vhost-user.rst): their layout, what each may carry, and how they come off a stream
 * socket piece by piece. Native byte order.
 */
#pragma once

#include "base/fdpass.h"
#include "helper/vhost-user-memory.h"

#include <stdint.h>

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_NET_SET_MTU = 20,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
	VHOST_USER_REQUEST_COUNT,
};

/* Bits of the features (virtio) and of the protocol features. */
#define VHOST_USER_F_PROTOCOL_FEATURES            30
#define VHOST_USER_PROTOCOL_F_MQ                  0
#define VHOST_USER_PROTOCOL_F_REPLY_ACK           3
#define VHOST_USER_PROTOCOL_F_NET_MTU             4
#define VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS 15

/* A header's flags. */
#define VHOST_USER_VERSION_MASK 3u
#define VHOST_USER_VERSION      1u
#define VHOST_USER_REPLY        (1u << 2)
#define VHOST_USER_NEED_REPLY   (1u << 3)

/* In SET_VRING_KICK, CALL and ERR: which ring, and that no fd comes along. */
#define VHOST_USER_RING_INDEX_MASK 0xffu
#define VHOST_USER_RING_NO_FD      (1u << 8)

/* Regions of one SET_MEM_TABLE. */
#define VHOST_USER_TABLE_REGIONS_MAX 8

struct vhost_user_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload, bytes */
};

struct vhost_user_ring_state {
	uint32_t index;
	uint32_t number;
};

struct vhost_user_ring_address {
	uint32_t index;
	uint32_t flags;
	uint64_t descriptors;
	uint64_t used;
	uint64_t avail;
	uint64_t log;
};

struct vhost_user_memory_table {
	uint32_t count;
	uint32_t padding;
	struct vhost_user_region_description regions[VHOST_USER_TABLE_REGIONS_MAX];
};

struct vhost_user_single_region {
	uint64_t padding;
	struct vhost_user_region_description region;
};

union vhost_user_payload {
	uint64_t number;
	struct vhost_user_ring_state state;
	struct vhost_user_ring_address address;
	struct vhost_user_memory_table table;
	struct vhost_user_single_region single;
};

/* One message, as far as it came. Zeroed, with an empty list of fds, it waits for the next. */
struct vhost_user_message {
	struct vhost_user_header header;
	union vhost_user_payload payload;
	struct fd_list fds;
	size_t received; /* bytes, the header's among them */
};

/* Empties the message for the next, and closes the fds nobody took. */
void vhost_user_message_reset(struct vhost_user_message *message);

/*
 * Receives without waiting what is still missing of a message. Returns 1 when it is complete and of
 * the size and with the number of fds that such a message has; 0 when more has to come. -ECONNRESET
 * at the stream's end, -EBADMSG when the message is none, or a negative errno of the socket.
 */
int vhost_user_message_receive(int socket, struct vhost_user_message *message);

/*
 * Answers a message with size bytes of payload (at most 16), without waiting. -EAGAIN when the
 * front-end doesn't read, or another negative errno.
 */
int vhost_user_message_reply(
	int socket, const struct vhost_user_message *message, const void *payload, uint32_t size);

/* The request's name in the specification without VHOST_USER_, NULL for one that isn't known. */
const char *vhost_user_request_name(uint32_t request);
