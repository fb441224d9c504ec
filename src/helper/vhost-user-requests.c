/* What the front-end's messages do: features, memory, rings. */
#include "helper/vhost-user-device.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vhost_types.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const uint64_t offered_protocol_features =
	1ull << VHOST_USER_PROTOCOL_F_MQ | 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |
	1ull << VHOST_USER_PROTOCOL_F_NET_MTU | 1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;

/* Which threads a message may not meet. */
enum quiet {
	QUIET_NOBODY,
	QUIET_RING,
	QUIET_ALL,
};

/* One message on its way: what it is about, and the answer. */
struct call {
	struct vhost_user *device;
	struct vhost_user_message *message;
	struct vhost_user_queue *queue; /* with QUIET_RING */
	union vhost_user_payload reply;
	uint32_t reply_size; /* 0: none but the acknowledgement */
	char *reason;
};

/* Why a message can't be: a text that stands behind the message's name. */
__attribute__((format(printf, 3, 4))) static int refuse(
	struct call *call, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(call->reason, VHOST_USER_REASON_SIZE, format, arguments);
	va_end(arguments);
	return error;
}

static int answer_number(struct call *call, uint64_t number)
{
	call->reply.number = number;
	call->reply_size = sizeof(number);
	return 0;
}

static int do_nothing(struct call *call)
{
	return 0;
}

static int get_features(struct call *call)
{
	return answer_number(call, call->device->offered_features);
}

static int set_features(struct call *call)
{
	uint64_t features = call->message->payload.number;
	uint64_t strange = features & ~call->device->offered_features;
	int error;

	if (strange)
		return refuse(call, -EINVAL, "features 0x%" PRIx64 " were not offered", strange);
	error = vhost_user_apply_features(call->device, features);
	if (error)
		return refuse(call, error, "the TAP refuses: %s", strerror(-error));
	/* Who does not know the protocol's features can't enable a ring (vhost-user: "Ring
	 * states"). With them a ring is as it was: QEMU says the features again for each pair. */
	if (!(features & 1ull << VHOST_USER_F_PROTOCOL_FEATURES))
		for (size_t i = 0; i < 2 * call->device->queue_pairs; i++)
			call->device->queues[i].is_enabled = true;
	return 0;
}

static int get_protocol_features(struct call *call)
{
	return answer_number(call, offered_protocol_features);
}

static int set_protocol_features(struct call *call)
{
	uint64_t features = call->message->payload.number;
	uint64_t strange = features & ~offered_protocol_features;

	if (strange)
		return refuse(call, -EINVAL, "features 0x%" PRIx64 " were not offered", strange);
	call->device->protocol_features = features;
	return 0;
}

/*
 * QEMU and DPDK take the number for queue pairs, Cloud Hypervisor and crosvm for single rings. The
 * larger one satisfies all of them; who then sets up a ring that isn't there is refused.
 */
static int get_queue_num(struct call *call)
{
	return answer_number(call, 2 * call->device->queue_pairs);
}

static int set_mtu(struct call *call)
{
	/* A positive result is an answer, not an end: the front-end may go on without. */
	return call->message->payload.number > call->device->mtu;
}

static int add_region(
	struct call *call, const struct vhost_user_region_description *region, size_t fd_index)
{
	int fd = fd_list_take(&call->message->fds, fd_index);
	int error;

	if (fd < 0)
		return refuse(call, -EBADMSG, "a memory region without its file");
	error = vhost_user_memory_add(&call->device->memory, region, fd);
	if (error)
		return refuse(call, error, "memory region of %" PRIu64 " bytes: %s", region->size,
			strerror(-error));
	return 0;
}

static int set_mem_table(struct call *call)
{
	const struct vhost_user_memory_table *table = &call->message->payload.table;

	vhost_user_memory_done(&call->device->memory);
	for (uint32_t i = 0; i < table->count; i++) {
		struct vhost_user_region_description region = table->regions[i];
		int error = add_region(call, &region, i);

		if (error)
			return error;
	}
	return 0;
}

static int get_max_mem_slots(struct call *call)
{
	return answer_number(call, VHOST_USER_REGIONS_MAX);
}

static int add_mem_reg(struct call *call)
{
	return add_region(call, &call->message->payload.single.region, 0);
}

static int remove_mem_reg(struct call *call)
{
	int error = vhost_user_memory_remove(
		&call->device->memory, &call->message->payload.single.region);

	return error ? refuse(call, error, "there is no such memory region") : 0;
}

static int set_ring_size(struct call *call)
{
	uint32_t size = call->message->payload.state.number;

	if (size == 0 || size > VHOST_USER_RING_SIZE_MAX || (size & (size - 1)) != 0)
		return refuse(call, -EINVAL, "a ring of %" PRIu32 " entries", size);
	call->queue->place.size = size;
	return 0;
}

static int set_ring_address(struct call *call)
{
	const struct vhost_user_ring_address *address = &call->message->payload.address;

	if (address->flags & 1u << VHOST_VRING_F_LOG)
		return refuse(call, -EINVAL, "logging was not offered");
	call->queue->place.descriptors = address->descriptors;
	call->queue->place.avail = address->avail;
	call->queue->place.used = address->used;
	return 0;
}

static int set_ring_base(struct call *call)
{
	uint32_t base = call->message->payload.state.number;

	if (base > UINT16_MAX)
		return refuse(call, -EINVAL, "a ring cannot begin at %" PRIu32, base);
	vhost_user_queue_begin(call->queue, (uint16_t)base);
	return 0;
}

static int get_ring_base(struct call *call)
{
	vhost_user_queue_halt(call->queue);
	call->reply.state = (struct vhost_user_ring_state){
		.index = call->message->payload.state.index,
		.number = call->queue->position,
	};
	call->reply_size = sizeof(call->reply.state);
	return 0;
}

/* Takes the message's eventfd into *ret_fd; -1 when the front-end says that there is none. Whatever
 * it is, nobody shall have to wait for it. */
static int take_event(struct call *call, int *ret_fd)
{
	bool has_none = call->message->payload.number & VHOST_USER_RING_NO_FD;
	int fd = fd_list_take(&call->message->fds, 0);
	int flags;

	if (has_none != (fd < 0)) {
		fd_close(fd);
		return refuse(call, -EBADMSG, "the fd does not match the flags");
	}
	if (fd >= 0) {
		flags = fcntl(fd, F_GETFL);
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	}
	fd_close(*ret_fd);
	*ret_fd = fd < 0 ? -1 : fd;
	return 0;
}

static int set_ring_kick(struct call *call)
{
	struct vhost_user_ring probe;
	int error = take_event(call, &call->queue->kick);

	if (error)
		return error;
	if (call->queue->kick < 0)
		return refuse(call, -EOPNOTSUPP, "a ring without kicks would have to be polled");
	error = vhost_user_ring_init(&probe, &call->device->memory, &call->queue->place, 0);
	if (error)
		return refuse(call, error, "the ring is not where the front-end says");
	return 0;
}

static int set_ring_call(struct call *call)
{
	return take_event(call, &call->queue->call);
}

static int set_ring_error(struct call *call)
{
	return take_event(call, &call->queue->failure);
}

static int set_ring_enable(struct call *call)
{
	if (call->message->payload.state.number > 1)
		return refuse(call, -EINVAL, "neither on nor off");
	call->queue->is_enabled = call->message->payload.state.number == 1;
	return 0;
}

struct request_handler {
	int (*handle)(struct call *call);
	enum quiet quiet;
};

static const struct request_handler handlers[] = {
	[VHOST_USER_GET_FEATURES] = {get_features},
	[VHOST_USER_SET_FEATURES] = {set_features, QUIET_ALL},
	[VHOST_USER_SET_OWNER] = {do_nothing},
	[VHOST_USER_RESET_OWNER] = {do_nothing},
	[VHOST_USER_SET_MEM_TABLE] = {set_mem_table, QUIET_ALL},
	[VHOST_USER_SET_VRING_NUM] = {set_ring_size, QUIET_RING},
	[VHOST_USER_SET_VRING_ADDR] = {set_ring_address, QUIET_RING},
	[VHOST_USER_SET_VRING_BASE] = {set_ring_base, QUIET_RING},
	[VHOST_USER_GET_VRING_BASE] = {get_ring_base, QUIET_RING},
	[VHOST_USER_SET_VRING_KICK] = {set_ring_kick, QUIET_RING},
	[VHOST_USER_SET_VRING_CALL] = {set_ring_call, QUIET_RING},
	[VHOST_USER_SET_VRING_ERR] = {set_ring_error, QUIET_RING},
	[VHOST_USER_GET_PROTOCOL_FEATURES] = {get_protocol_features},
	[VHOST_USER_SET_PROTOCOL_FEATURES] = {set_protocol_features},
	[VHOST_USER_GET_QUEUE_NUM] = {get_queue_num},
	[VHOST_USER_SET_VRING_ENABLE] = {set_ring_enable, QUIET_RING},
	[VHOST_USER_NET_SET_MTU] = {set_mtu},
	[VHOST_USER_GET_MAX_MEM_SLOTS] = {get_max_mem_slots},
	[VHOST_USER_ADD_MEM_REG] = {add_mem_reg, QUIET_ALL},
	[VHOST_USER_REM_MEM_REG] = {remove_mem_reg, QUIET_ALL},
};
static_assert(array_length(handlers) == VHOST_USER_REQUEST_COUNT, "one handler a request");

/* Where the index of a ring stands differs between two kinds of message. */
static uint32_t ring_index(const struct vhost_user_message *message)
{
	switch (message->header.request) {
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		return (uint32_t)(message->payload.number & VHOST_USER_RING_INDEX_MASK);
	default:
		return message->payload.state.index;
	}
}

static int quieten(struct call *call, enum quiet quiet)
{
	struct vhost_user *device = call->device;
	uint32_t index;

	if (quiet == QUIET_ALL)
		vhost_user_pause_all(device);
	if (quiet != QUIET_RING)
		return 0;
	index = ring_index(call->message);
	if (index >= 2 * device->queue_pairs)
		return refuse(call, -EINVAL,
			"queue pair %" PRIu32 " of %zu: give the helper more --queues",
			index / 2 + 1, device->queue_pairs);
	call->queue = &device->queues[index];
	vhost_user_queue_pause(call->queue);
	return 0;
}

static int acknowledge(struct call *call, int result)
{
	const struct vhost_user_message *message = call->message;
	uint64_t code = result != 0;
	bool is_wanted = message->header.flags & VHOST_USER_NEED_REPLY &&
			 call->device->protocol_features & 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK;

	if (result >= 0 && call->reply_size > 0)
		return vhost_user_message_reply(
			call->device->connection, message, &call->reply, call->reply_size);
	if (!is_wanted)
		return 0;
	return vhost_user_message_reply(call->device->connection, message, &code, sizeof(code));
}

static int carry_out(struct call *call)
{
	const struct request_handler *handler = &handlers[call->message->header.request];
	int result = quieten(call, handler->quiet);
	int error;

	if (!result)
		result = handler->handle(call);
	/* The threads go on before the front-end hears that they do. */
	if (result >= 0 && handler->quiet != QUIET_NOBODY) {
		error = vhost_user_resume_all(call->device);
		if (error)
			result = refuse(call, error, "%s", strerror(-error));
	}
	error = acknowledge(call, result);
	if (result >= 0 && error)
		result = refuse(call, error, "the answer: %s", strerror(-error));
	return result < 0 ? result : 0;
}

int vhost_user_handle(
	struct vhost_user *device, struct vhost_user_message *message, char *ret_reason)
{
	char reason[VHOST_USER_REASON_SIZE] = "";
	struct call call = {.device = device, .message = message, .reason = reason};
	int error = carry_out(&call);

	if (error)
		snprintf(ret_reason, VHOST_USER_REASON_SIZE, "%s: %.120s",
			vhost_user_request_name(message->header.request), reason);
	return error;
}
