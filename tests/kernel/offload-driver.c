/*
 * The offloads as a filter, for test_offload.py to hold against the kernel. Each request on stdin:
 *     function (see functions[]), MTU, number of frames: 32 bits each
 *     for each frame: length (32 bits), header of 12 bytes, the frame
 * is answered on stdout, after as many calls as it takes, by
 *     drops, number of gathered frames: 32 bits each
 *     for each: length and frames that it stands for (32 bits each), header of 12 bytes, the frame
 * in the machine's byte order, until stdin ends. Anything else ends the program with status 1.
 */
#include "base/cleanup.h"
#include "helper/offload.h"

#include <stdbool.h>
#include <stdlib.h>

static const offload_function functions[] = {
	offload_segment, offload_coalesce, offload_pass, offload_complete, offload_rebuild};

/* What all gathers of a request hold: cutting into bytes is the most that can be asked for. */
struct answer {
	uint32_t count;
	FILE *frames;
	char *bytes;
	size_t size;
};

static bool take(void *bytes, size_t size)
{
	return fread(bytes, 1, size, stdin) == size;
}

static void take_or_exit(void *bytes, size_t size)
{
	if (!take(bytes, size))
		exit(1);
}

static uint32_t take_number(void)
{
	uint32_t number;

	take_or_exit(&number, sizeof(number));
	return number;
}

static void take_frame(struct frame *frame, uint8_t *memory)
{
	uint32_t length = take_number();

	if (length < FRAME_HEADER_SIZE || length > FRAME_SIZE_MAX)
		exit(1);
	*frame = (struct frame){.data = memory, .length = length};
	take_or_exit(&frame->header, sizeof(frame->header));
	take_or_exit(frame->data, length);
}

static void put_number(FILE *file, size_t number)
{
	uint32_t value = (uint32_t)number;

	fwrite(&value, 1, sizeof(value), file);
}

static void add_to_answer(struct answer *answer, const struct gathered_frame *frame)
{
	answer->count++;
	put_number(answer->frames, frame->length);
	put_number(answer->frames, frame->frame_count);
	fwrite(&frame->header, 1, sizeof(frame->header), answer->frames);
	for (size_t i = 1; i < frame->part_count; i++)
		fwrite(frame->parts[i].iov_base, 1, frame->parts[i].iov_len, answer->frames);
}

static void send_answer(struct answer *answer, uint64_t drops)
{
	if (fclose(answer->frames) != 0)
		exit(1);
	put_number(stdout, drops);
	put_number(stdout, answer->count);
	fwrite(answer->bytes, 1, answer->size, stdout);
	if (fflush(stdout) != 0)
		exit(1);
	free(answer->bytes);
}

static void serve(uint32_t function, struct batch *batch, struct gather *gather)
{
	struct direction_counters counters = {0};
	struct offload offload = {.mtu = take_number()};
	struct answer answer = {0};

	batch->count = take_number();
	answer.frames = open_memstream(&answer.bytes, &answer.size);
	if (function >= array_length(functions) || batch->count > BATCH_FRAMES || !answer.frames)
		exit(1);
	for (size_t i = 0; i < batch->count; i++)
		take_frame(&batch->frames[i], batch->memory + i * FRAME_SIZE_MAX);
	offload_begin(&offload);
	while (functions[function](&offload, batch, gather, &counters)) {
		for (size_t i = 0; i < gather->count; i++)
			add_to_answer(&answer, &gather->frames[i]);
	}
	send_answer(&answer, atomic_load(&counters.drops));
}

int main(void)
{
	cleanup_free struct gather *gather = malloc(sizeof(*gather));
	cleanup_free uint8_t *memory = malloc((size_t)BATCH_FRAMES * FRAME_SIZE_MAX);
	struct batch batch = {.memory = memory};
	uint32_t function;

	if (!gather || !memory)
		return 1;
	while (take(&function, sizeof(function)))
		serve(function, &batch, gather);
	return 0;
}
