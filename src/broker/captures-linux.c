/* The platform's captures: processes that priv starts and feeds. */
#include "broker/linux.h"
#include "wire/capture-call.h"

#include <assert.h>
#include <errno.h>

static_assert(PLATFORM_COMMENT_SIZE == VERB_CAPTURE_COMMENT, "a comment is passed on whole");
static_assert(
	CAPTURE_SNAPLEN_DEFAULT <= VERB_SNAPLEN_MAX && CAPTURE_SNAPLEN_MIN >= VERB_SNAPLEN_MIN,
	"priv takes what can be asked for");

int platform_start_capture(struct platform *platform, const struct platform_capture *wanted,
	uint32_t *ret_number, int *ret_stream, char *detail)
{
	struct verb_request request = {
		.verb = VERB_START_CAPTURE,
		.start_capture =
			{
				.end = wanted->until_network ? VERB_CAPTURE_UNTIL_NETWORK
							     : VERB_CAPTURE_UNTIL_INTERFACE,
				.snaplen = wanted->snaplen,
				.count = wanted->count,
			},
	};
	cleanup_fds struct fd_list fds;
	struct verb_reply reply;
	int error = text_copy(request.start_capture.network, sizeof(request.start_capture.network),
		wanted->network);

	fd_list_init(&fds);
	if (!error)
		error = linux_call(platform, &request, NULL, 0, &reply, &fds, detail);
	if (error)
		return error;
	if (fds.count != 1)
		return -EPROTO;
	*ret_number = reply.value;
	*ret_stream = fd_list_take(&fds, 0);
	return 0;
}

int platform_capture_interface(struct platform *platform, uint32_t capture, uint32_t number,
	const char *comment, char *detail)
{
	struct verb_request request = {
		.verb = VERB_CAPTURE_INTERFACE,
		.capture_interface = {.capture = capture, .number = number},
	};
	int error = text_copy(request.capture_interface.comment,
		sizeof(request.capture_interface.comment), comment);

	return error ? error : linux_call(platform, &request, NULL, 0, NULL, NULL, detail);
}

void platform_end_capture(struct platform *platform, uint32_t capture)
{
	struct verb_request request = {.verb = VERB_END_CAPTURE, .end_capture.capture = capture};

	/* One that has ended by itself is no failure. */
	(void)linux_call(platform, &request, NULL, 0, NULL, NULL, NULL);
}
