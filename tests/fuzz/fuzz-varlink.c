/*
 * What a peer may send, in whatever pieces: framing, calls and answers, and every message's
 * decoder. What decodes is encoded and decoded once more, and has to come out the same.
 *
 * Byte 0: seed of the splitting. Byte 1: FLAG_*. The rest is the stream.
 */
#include "base/cleanup.h"
#include "wire/messages.h"
#include "wire/varlink.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FLAG_FDS 1u /* some pieces bring fds along */
#define FLAG_REPEAT                                                                                \
	2u /* the stream comes again and again until it is longer than a message may be */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert(), also in a build without debugging. */
static void check(bool holds)
{
	if (!holds)
		abort();
}

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 16;
}

static void drive_acquire(json_t *parameters)
{
	struct acquire_network_call call, again;
	char reason[BROKER_REASON_SIZE] = "";
	json_t *encoded;

	if (acquire_network_decode(parameters, &call, reason) < 0) {
		check(*reason);
		return;
	}
	encoded = acquire_network_encode(&call);
	check(acquire_network_decode(encoded, &again, reason) == 0);
	check(strcmp(call.wanted.network, again.wanted.network) == 0);
	json_decref(encoded);
}

static void drive_create(json_t *parameters)
{
	struct create_interface_call call, again;
	char reason[BROKER_REASON_SIZE] = "";
	json_t *encoded;

	memset(&call, 0, sizeof(call));
	memset(&again, 0, sizeof(again));
	if (create_interface_decode(parameters, &call, reason) < 0) {
		check(*reason);
		return;
	}
	check(call.sockets_count <= BROKER_SOCKETS_MAX && call.queues <= BROKER_QUEUES_MAX);
	encoded = create_interface_encode(&call);
	check(create_interface_decode(encoded, &again, reason) == 0);
	check(memcmp(&call, &again, sizeof(call)) == 0);
	json_decref(encoded);
}

static void drive_enlarge(json_t *parameters)
{
	struct enlarge_socket_buffers_call call, again;
	char reason[BROKER_REASON_SIZE] = "";
	json_t *encoded;

	if (enlarge_socket_buffers_decode(parameters, &call, reason) < 0) {
		check(*reason);
		return;
	}
	check(call.sockets_count >= 1 && call.sockets_count <= BROKER_SOCKETS_MAX);
	encoded = enlarge_socket_buffers_encode(&call);
	check(enlarge_socket_buffers_decode(encoded, &again, reason) == 0);
	check(call.sockets_count == again.sockets_count && call.sockets[0] == again.sockets[0]);
	json_decref(encoded);
}

static void drive_list_interfaces(json_t *parameters)
{
	struct list_interfaces_call call;
	char reason[BROKER_REASON_SIZE] = "";

	if (list_interfaces_decode(parameters, &call, reason) < 0)
		check(*reason);
	else
		check(strlen(call.after) < sizeof(call.after));
}

static void drive_forward(json_t *parameters)
{
	struct broker_forward forward = {.is_active = true};
	char listen[ENDPOINT_TEXT_SIZE], target[FORWARD_TARGET_SIZE];
	char reason[BROKER_REASON_SIZE] = "";
	struct forward_call call;
	struct forward_spec again;
	json_t *encoded;

	if (forward_call_decode(parameters, &call, reason) < 0) {
		check(*reason);
		return;
	}
	check(call.spec.listen.port != 0 && call.spec.target.port != 0);
	endpoint_to_text(&call.spec.listen, listen);
	forward_target_to_text(&call.spec, target);
	forward_spec_init(&again);
	again.protocol = call.spec.protocol;
	check(forward_spec_set_listen(&again, listen) == 0);
	check(forward_spec_set_target(&again, target) == 0);
	check(forward_spec_settle(&again) == 0);
	check(forward_specs_are_equal(&call.spec, &again));
	forward.spec = call.spec;
	forward.address = call.spec.target;
	encoded = broker_forward_encode(&forward);
	check(encoded != NULL);
	json_decref(encoded);
}

static void drive_network(json_t *parameters)
{
	struct broker_network network, again;
	json_t *encoded;

	if (acquired_network_decode(parameters, &network) < 0)
		return;
	encoded = acquired_network_encode(&network);
	check(acquired_network_decode(encoded, &again) == 0);
	check(strcmp(network.name, again.name) == 0 && strcmp(network.bridge, again.bridge) == 0);
	check(network.gateway.s_addr == again.gateway.s_addr && network.mtu == again.mtu);
	check(network.subnet.prefix_length == again.subnet.prefix_length);
	json_decref(encoded);
}

static void drive_created(json_t *parameters)
{
	struct created_interface created, again;
	json_t *encoded;

	if (created_interface_decode(parameters, &created) < 0)
		return;
	check(created.queues_count >= 1 && created.queues_count <= BROKER_QUEUES_MAX);
	encoded = created_interface_encode(&created);
	check(created_interface_decode(encoded, &again) == 0);
	check(strcmp(created.interface_name, again.interface_name) == 0);
	check(memcmp(created.queues, again.queues, sizeof(created.queues)) == 0);
	check(created.vhosts_count == 0 || created.vhosts_count == created.queues_count);
	check(memcmp(created.vhosts, again.vhosts, sizeof(created.vhosts)) == 0);
	check(created.address.s_addr == again.address.s_addr);
	json_decref(encoded);
}

static void drive_enlarged(json_t *parameters)
{
	uint32_t bytes, again;
	json_t *encoded;

	if (enlarged_socket_buffers_decode(parameters, &bytes) < 0)
		return;
	encoded = enlarged_socket_buffers_encode(bytes);
	check(enlarged_socket_buffers_decode(encoded, &again) == 0 && bytes == again);
	json_decref(encoded);
}

static void drive_call(json_t *message)
{
	struct varlink_call call;
	json_t *made;

	if (varlink_call_decode(message, &call) < 0)
		return;
	drive_acquire(call.parameters);
	drive_create(call.parameters);
	drive_enlarge(call.parameters);
	drive_list_interfaces(call.parameters);
	drive_forward(call.parameters);
	made = varlink_make_call(call.method, json_incref(call.parameters));
	check(made && varlink_call_decode(made, &call) == 0);
	json_decref(made);
}

static void drive_error(const struct varlink_reply *reply)
{
	char reason[BROKER_REASON_SIZE], again[BROKER_REASON_SIZE];
	enum broker_error error, error_again;
	struct varlink_reply made;
	json_t *message;

	broker_error_decode(reply->parameters, reason);
	if (broker_error_from_name(reply->error, &error) < 0)
		return;
	message = broker_error_encode(error, reason);
	check(varlink_reply_decode(message, &made) == 0);
	check(broker_error_from_name(made.error, &error_again) == 0 && error == error_again);
	broker_error_decode(made.parameters, again);
	check(strlen(again) == strlen(reason));
	json_decref(message);
}

static void drive_reply(json_t *message)
{
	struct varlink_reply reply;
	json_t *made;

	if (varlink_reply_decode(message, &reply) < 0)
		return;
	if (reply.error)
		drive_error(&reply);
	drive_network(reply.parameters);
	drive_created(reply.parameters);
	drive_enlarged(reply.parameters);
	made = varlink_make_reply(json_incref(reply.parameters));
	check(made && varlink_reply_decode(made, &reply) == 0 && !reply.error);
	json_decref(made);
}

/* Everything that is complete. False when the stream is of no more use. */
static bool drive_messages(struct varlink_input *input)
{
	json_t *message;
	struct fd_list fds;
	int result;

	while ((result = varlink_input_next(input, &message, &fds)) == 1) {
		char *bytes;
		size_t size;

		check(fds.count <= FD_PASS_MAX);
		for (size_t i = 0; i < fds.count; i++)
			check(fds.fds[i] >= 0);
		fd_list_done(&fds);
		drive_call(message);
		drive_reply(message);
		if (varlink_encode(message, &bytes, &size) == 0) {
			check(size <= VARLINK_MESSAGE_MAX && bytes[size - 1] == '\0');
			free(bytes);
		}
		json_decref(message);
	}
	return result == 0;
}

static struct fd_list make_fds(uint32_t random)
{
	struct fd_list fds;

	fd_list_init(&fds);
	while (fds.count < random % 8)
		fds.fds[fds.count++] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	return fds;
}

static bool feed_piece(struct varlink_input *input, const uint8_t *data, size_t size,
	unsigned flags, uint32_t *random)
{
	struct fd_list fds = make_fds(
		flags & FLAG_FDS && next_random(random) % 2 == 0 ? next_random(random) : 0);

	if (varlink_input_feed(input, data, size, &fds) < 0)
		return false;
	check(fds.count == 0);
	/* A peer that sends faster than it is served. */
	return next_random(random) % 3 == 0 || drive_messages(input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_with(varlink_input_free) struct varlink_input *input = NULL;
	size_t total = 0, offset = 0;
	uint32_t random;
	unsigned flags;
	bool is_good = true;

	if (size < 3 || varlink_input_new(&input) < 0)
		return 0;
	random = data[0];
	flags = data[1];
	data += 2;
	size -= 2;
	while (is_good && offset < size) {
		size_t piece = next_random(&random) % (flags & FLAG_REPEAT ? 1024 : 64);

		if (piece > size - offset)
			piece = size - offset;
		is_good = feed_piece(input, data + offset, piece, flags, &random);
		offset += piece;
		total += piece;
		if (offset == size && flags & FLAG_REPEAT && total <= VARLINK_MESSAGE_MAX)
			offset = 0;
	}
	if (is_good && drive_messages(input))
		varlink_input_is_partial(input);
	return 0;
}
