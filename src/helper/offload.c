#include "helper/offload.h"

#include "base/cleanup.h"
#include "helper/offload-gather.h"

#include <assert.h>

static const struct offload_functions functions[] = {
	[OFFLOAD_NONE] = {.host_to_vm = offload_segment, .vm_to_host = offload_coalesce},
	[OFFLOAD_RAW] = {.host_to_vm = offload_complete, .vm_to_host = offload_rebuild},
	[OFFLOAD_VNET_HDR] = {.host_to_vm = offload_pass, .vm_to_host = offload_pass},
};
static_assert(array_length(functions) == OFFLOAD_MODE_COUNT, "one for each mode");

struct offload_functions offload_functions(enum offload_mode mode)
{
	return functions[mode];
}

bool offload_pass(struct offload *offload, struct batch *batch, struct gather *gather,
	struct direction_counters *counters)
{
	offload_gather_empty(gather);
	for (; offload->next_frame < batch->count; offload->next_frame++) {
		const struct frame *frame = &batch->frames[offload->next_frame];
		struct gathered_frame *gathered = offload_gather_whole(gather, frame);

		gathered->header = frame->header;
		gathered->header.num_buffers = 1;
	}
	return gather->count > 0;
}
