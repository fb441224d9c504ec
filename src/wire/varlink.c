#include "wire/varlink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* fds waiting for the message that ends at or behind position. */
struct attachment {
	size_t position; /* in bytes[]: of a byte of the message they belong to */
	struct fd_list fds;
};

struct varlink_input {
	char *bytes;
	size_t capacity;
	size_t size;  /* bytes held */
	size_t start; /* of the next message to give out */
	size_t tail;  /* of the message that has not ended yet; == size when there is none */
	struct attachment *attachments; /* in the order of their positions */
	size_t attachments_capacity;
	size_t attachments_count;
};

int varlink_input_new(struct varlink_input **ret_input)
{
	struct varlink_input *input = calloc(1, sizeof(*input));

	if (!input)
		return -ENOMEM;
	*ret_input = input;
	return 0;
}

void varlink_input_free(struct varlink_input *input)
{
	if (!input)
		return;
	for (size_t i = 0; i < input->attachments_count; i++)
		fd_list_done(&input->attachments[i].fds);
	free(input->attachments);
	free(input->bytes);
	free(input);
}

static void forget_consumed(struct varlink_input *input)
{
	if (input->start == 0)
		return;
	memmove(input->bytes, input->bytes + input->start, input->size - input->start);
	for (size_t i = 0; i < input->attachments_count; i++)
		input->attachments[i].position -= input->start;
	input->size -= input->start;
	input->tail -= input->start;
	input->start = 0;
}

static int reserve_bytes(struct varlink_input *input, size_t more)
{
	size_t capacity = input->capacity ? input->capacity : 1024;
	char *bytes;

	while (capacity - input->size < more)
		capacity *= 2;
	if (capacity == input->capacity)
		return 0;
	bytes = realloc(input->bytes, capacity);
	if (!bytes)
		return -ENOMEM;
	input->bytes = bytes;
	input->capacity = capacity;
	return 0;
}

static int append_attachment(struct varlink_input *input, struct fd_list *fds)
{
	struct attachment *attachments = input->attachments;

	if (input->attachments_count == input->attachments_capacity) {
		size_t capacity = input->attachments_capacity * 2 + 1;

		attachments = reallocarray(attachments, capacity, sizeof(*attachments));
		if (!attachments)
			return -ENOMEM;
		input->attachments = attachments;
		input->attachments_capacity = capacity;
	}
	attachments += input->attachments_count++;
	attachments->position = input->size - 1;
	attachments->fds = *fds;
	fd_list_init(fds);
	return 0;
}

/*
 * The kernel puts bytes that were sent before the fds in front of theirs, but none behind them
 * (unix(7)): fds came with the last byte received, whatever messages end before it.
 */
static int attach(struct varlink_input *input, size_t message_start, struct fd_list *fds)
{
	struct attachment *last = input->attachments_count > 0
					  ? &input->attachments[input->attachments_count - 1]
					  : NULL;

	if (!last || last->position < message_start)
		return append_attachment(input, fds);
	if (fds->count > FD_PASS_MAX - last->fds.count)
		return -EBADMSG;
	for (size_t i = 0; i < fds->count; i++)
		last->fds.fds[last->fds.count++] = take_fd(&fds->fds[i]);
	fd_list_init(fds);
	return 0;
}

/* Returns where the message of the last byte begins, or -EMSGSIZE. */
static ssize_t mark_messages(struct varlink_input *input, size_t from)
{
	size_t last_start = input->tail;

	while (from < input->size) {
		const char *end = memchr(input->bytes + from, '\0', input->size - from);
		size_t next = end ? (size_t)(end - input->bytes) + 1 : input->size;

		/* What has not ended yet still needs room for its NUL. */
		if (next - input->tail + (end ? 0 : 1) > VARLINK_MESSAGE_MAX)
			return -EMSGSIZE;
		last_start = input->tail;
		if (end)
			input->tail = next;
		from = next;
	}
	return (ssize_t)last_start;
}

int varlink_input_feed(
	struct varlink_input *input, const void *bytes, size_t size, struct fd_list *fds)
{
	cleanup_fds struct fd_list owned = *fds;
	ssize_t message_start;
	int error;

	fd_list_init(fds);
	if (size == 0)
		return owned.count > 0 ? -EBADMSG : 0;
	forget_consumed(input);
	error = reserve_bytes(input, size);
	if (error)
		return error;
	memcpy(input->bytes + input->size, bytes, size);
	input->size += size;
	message_start = mark_messages(input, input->size - size);
	if (message_start < 0)
		return (int)message_start;
	return owned.count > 0 ? attach(input, (size_t)message_start, &owned) : 0;
}

bool varlink_input_is_partial(const struct varlink_input *input)
{
	return input->tail < input->size;
}

/* Takes the fds of the message that ends before end out of the queue. */
static void detach(struct varlink_input *input, size_t end, struct fd_list *ret_fds)
{
	fd_list_init(ret_fds);
	if (input->attachments_count == 0 || input->attachments[0].position >= end)
		return;
	*ret_fds = input->attachments[0].fds;
	input->attachments_count--;
	memmove(input->attachments, input->attachments + 1,
		input->attachments_count * sizeof(*input->attachments));
}

static bool is_deeper_than(json_t *value, unsigned limit)
{
	const char *key;
	json_t *member;
	size_t index;

	if (!json_is_object(value) && !json_is_array(value))
		return false;
	if (limit == 0)
		return true;
	json_object_foreach(value, key, member) if (is_deeper_than(member, limit - 1)) return true;
	json_array_foreach(value, index, member) if (is_deeper_than(member, limit - 1)) return true;
	return false;
}

int varlink_input_next(struct varlink_input *input, json_t **ret_message, struct fd_list *ret_fds)
{
	cleanup_fds struct fd_list fds;
	cleanup_json json_t *message = NULL;
	const char *text;
	size_t length;

	fd_list_init(&fds);
	if (input->start == input->tail)
		return 0;
	text = input->bytes + input->start;
	length = strlen(text);
	input->start += length + 1;
	detach(input, input->start, &fds);
	message = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(message) || is_deeper_than(message, VARLINK_DEPTH_MAX))
		return -EBADMSG;
	*ret_message = take_ptr(message);
	*ret_fds = fds;
	fd_list_init(&fds);
	return 1;
}

/* A key that is absent is false. */
static int decode_flag(json_t *message, const char *key, bool *ret_flag)
{
	json_t *value = json_object_get(message, key);

	if (value && !json_is_boolean(value))
		return -EBADMSG;
	*ret_flag = json_is_true(value);
	return 0;
}

/* An absent key and null mean the same. */
static int decode_parameters(json_t *message, json_t **ret_parameters)
{
	json_t *value = json_object_get(message, "parameters");

	if (value && !json_is_object(value) && !json_is_null(value))
		return -EBADMSG;
	*ret_parameters = json_is_object(value) ? value : NULL;
	return 0;
}

int varlink_call_decode(json_t *message, struct varlink_call *ret_call)
{
	struct varlink_call call = {
		.method = json_string_value(json_object_get(message, "method"))};

	if (!call.method || decode_parameters(message, &call.parameters) < 0 ||
		decode_flag(message, "oneway", &call.oneway) < 0 ||
		decode_flag(message, "more", &call.more) < 0)
		return -EBADMSG;
	*ret_call = call;
	return 0;
}

int varlink_reply_decode(json_t *message, struct varlink_reply *ret_reply)
{
	json_t *error = json_object_get(message, "error");
	struct varlink_reply reply = {.error = json_string_value(error)};

	if ((error && !reply.error) || decode_parameters(message, &reply.parameters) < 0 ||
		decode_flag(message, "continues", &reply.continues) < 0)
		return -EBADMSG;
	*ret_reply = reply;
	return 0;
}

int varlink_encode(json_t *message, char **ret_bytes, size_t *ret_size)
{
	cleanup_free char *bytes = json_dumps(message, JSON_COMPACT);
	size_t size;

	if (!bytes)
		return -ENOMEM;
	size = strlen(bytes) + 1;
	if (size > VARLINK_MESSAGE_MAX)
		return -EMSGSIZE;
	*ret_bytes = take_ptr(bytes);
	*ret_size = size;
	return 0;
}

json_t *varlink_make_call(const char *method, json_t *parameters)
{
	return json_pack("{s:s, s:o*}", "method", method, "parameters", parameters);
}

json_t *varlink_make_reply(json_t *parameters)
{
	return parameters ? json_pack("{s:o}", "parameters", parameters)
			  : json_pack("{s:{}}", "parameters");
}

json_t *varlink_make_error(const char *error, json_t *parameters)
{
	return json_pack("{s:s, s:o*}", "error", error, "parameters", parameters);
}
