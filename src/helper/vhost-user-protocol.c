#include "helper/vhost-user-protocol.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define HEADER_SIZE sizeof(struct vhost_user_header)
#define REPLY_MAX   16

struct request_shape {
	const char *name;
	uint32_t size_min, size_max;
	uint32_t fds_max;
};

#define EXACTLY(type) .size_min = sizeof(type), .size_max = sizeof(type)

/* SET_MEM_TABLE's size is checked against its count too. REM_MEM_REG may bring a fd, by mistake of
 * older front-ends. */
static const struct request_shape shapes[] = {
	[VHOST_USER_GET_FEATURES] = {"GET_FEATURES"},
	[VHOST_USER_SET_FEATURES] = {"SET_FEATURES", EXACTLY(uint64_t)},
	[VHOST_USER_SET_OWNER] = {"SET_OWNER"},
	[VHOST_USER_RESET_OWNER] = {"RESET_OWNER"},
	[VHOST_USER_SET_MEM_TABLE] = {"SET_MEM_TABLE", 8, sizeof(struct vhost_user_memory_table),
		VHOST_USER_TABLE_REGIONS_MAX},
	[VHOST_USER_SET_VRING_NUM] = {"SET_VRING_NUM", EXACTLY(struct vhost_user_ring_state)},
	[VHOST_USER_SET_VRING_ADDR] = {"SET_VRING_ADDR", EXACTLY(struct vhost_user_ring_address)},
	[VHOST_USER_SET_VRING_BASE] = {"SET_VRING_BASE", EXACTLY(struct vhost_user_ring_state)},
	[VHOST_USER_GET_VRING_BASE] = {"GET_VRING_BASE", EXACTLY(struct vhost_user_ring_state)},
	[VHOST_USER_SET_VRING_KICK] = {"SET_VRING_KICK", EXACTLY(uint64_t), .fds_max = 1},
	[VHOST_USER_SET_VRING_CALL] = {"SET_VRING_CALL", EXACTLY(uint64_t), .fds_max = 1},
	[VHOST_USER_SET_VRING_ERR] = {"SET_VRING_ERR", EXACTLY(uint64_t), .fds_max = 1},
	[VHOST_USER_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES"},
	[VHOST_USER_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", EXACTLY(uint64_t)},
	[VHOST_USER_GET_QUEUE_NUM] = {"GET_QUEUE_NUM"},
	[VHOST_USER_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", EXACTLY(struct vhost_user_ring_state)},
	[VHOST_USER_NET_SET_MTU] = {"NET_SET_MTU", EXACTLY(uint64_t)},
	[VHOST_USER_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS"},
	[VHOST_USER_ADD_MEM_REG] = {"ADD_MEM_REG", EXACTLY(struct vhost_user_single_region), 1},
	[VHOST_USER_REM_MEM_REG] = {"REM_MEM_REG", EXACTLY(struct vhost_user_single_region), 1},
};
static_assert(array_length(shapes) == VHOST_USER_REQUEST_COUNT, "one shape a request");

const char *vhost_user_request_name(uint32_t request)
{
	return request < array_length(shapes) ? shapes[request].name : NULL;
}

void vhost_user_message_reset(struct vhost_user_message *message)
{
	fd_list_done(&message->fds);
	message->header = (struct vhost_user_header){0};
	message->payload = (union vhost_user_payload){0};
	message->received = 0;
}

/* Known, of this version, no answer, and no longer than such a message can be. */
static bool header_is_valid(const struct vhost_user_header *header)
{
	if (!vhost_user_request_name(header->request))
		return false;
	return (header->flags & VHOST_USER_VERSION_MASK) == VHOST_USER_VERSION &&
	       !(header->flags & VHOST_USER_REPLY) &&
	       header->size >= shapes[header->request].size_min &&
	       header->size <= shapes[header->request].size_max;
}

static bool message_is_valid(const struct vhost_user_message *message)
{
	const struct vhost_user_header *header = &message->header;
	const struct vhost_user_memory_table *table = &message->payload.table;

	if (message->fds.count > shapes[header->request].fds_max)
		return false;
	if (header->request != VHOST_USER_SET_MEM_TABLE)
		return true;
	return table->count <= VHOST_USER_TABLE_REGIONS_MAX && message->fds.count == table->count &&
	       header->size == offsetof(struct vhost_user_memory_table, regions) +
				       table->count * sizeof(table->regions[0]);
}

/* One recv of size bytes to there, and the fds that came with them. */
static int receive_piece(
	int socket, struct vhost_user_message *message, uint8_t *there, size_t size)
{
	cleanup_fds struct fd_list fds;
	ssize_t received;

	fd_list_init(&fds);
	received = fd_receive(socket, there, size, &fds);
	if (received == -EAGAIN)
		return 0;
	if (received <= 0)
		return received == 0 ? -ECONNRESET : (int)received;
	message->received += (size_t)received;
	if (fds.count == 0)
		return 1;
	if (message->fds.count > 0)
		return -EBADMSG;
	message->fds = fds;
	fds.count = 0;
	return 1;
}

/* What of the message is missing next; 0 bytes when nothing is. */
static size_t missing_piece(struct vhost_user_message *message, uint8_t **ret_there)
{
	if (message->received < HEADER_SIZE) {
		*ret_there = (uint8_t *)&message->header + message->received;
		return HEADER_SIZE - message->received;
	}
	*ret_there = (uint8_t *)&message->payload + (message->received - HEADER_SIZE);
	return HEADER_SIZE + message->header.size - message->received;
}

int vhost_user_message_receive(int socket, struct vhost_user_message *message)
{
	for (;;) {
		uint8_t *there;
		size_t size;
		int received;

		if (message->received >= HEADER_SIZE && !header_is_valid(&message->header))
			return -EBADMSG;
		size = missing_piece(message, &there);
		if (size == 0)
			return message_is_valid(message) ? 1 : -EBADMSG;
		received = receive_piece(socket, message, there, size);
		if (received <= 0)
			return received;
	}
}

int vhost_user_message_reply(
	int socket, const struct vhost_user_message *message, const void *payload, uint32_t size)
{
	struct vhost_user_header header = {
		.request = message->header.request,
		.flags = VHOST_USER_VERSION | VHOST_USER_REPLY,
		.size = size,
	};
	uint8_t bytes[HEADER_SIZE + REPLY_MAX];
	ssize_t sent;

	if (size > REPLY_MAX)
		return -EMSGSIZE;
	memcpy(bytes, &header, HEADER_SIZE);
	memcpy(bytes + HEADER_SIZE, payload, size);
	sent = fd_send(socket, bytes, HEADER_SIZE + size, NULL, 0);
	if (sent < 0)
		return (int)sent;
	return (size_t)sent == HEADER_SIZE + size ? 0 : -EAGAIN;
}
