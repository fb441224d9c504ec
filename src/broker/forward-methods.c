#include "broker/forward-methods.h"

#include "base/cleanup.h"

/* Of at most 400 bytes each, so that they fit into one message with room for members to come. */
#define PAGE_LENGTH 100

static void fail_invalid(struct peer *peer, const char *reason)
{
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_INVALID_REQUEST, "%s", reason);
	peer_fail(peer, &failure);
}

static json_t *encode(const struct forward *forward)
{
	struct broker_forward described;

	forward_describe(forward, &described);
	return broker_forward_encode(&described);
}

void forward_handle_add(struct peer *peer, struct forwards *forwards, const void *holder,
	const struct varlink_call *call)
{
	const struct forward_asker asker = {.user = &peer->credentials, .holder = holder};
	struct forward_call asked;
	char reason[BROKER_REASON_SIZE];
	struct forward *forward;
	struct failure failure;

	if (forward_call_decode(call->parameters, &asked, reason) < 0)
		fail_invalid(peer, reason);
	else if (forwards_add(forwards, &asked, &asker, &forward, &failure) < 0)
		peer_fail(peer, &failure);
	else
		peer_reply(peer, json_pack("{s:o}", "forward", encode(forward)), NULL, 0);
}

static json_t *make_page(const struct forwards *forwards, uid_t uid, uint32_t after, bool *ret_more)
{
	cleanup_json json_t *list = json_array();

	*ret_more = false;
	for (const struct forward *forward = forwards->list; list && forward && !*ret_more;
		forward = forward->next) {
		if (forward->record.id <= after || (uid != 0 && forward->record.uid != uid))
			continue;
		if (json_array_size(list) == PAGE_LENGTH)
			*ret_more = true;
		else if (json_array_append_new(list, encode(forward)) < 0)
			return NULL;
	}
	return take_ptr(list);
}

void forward_handle_list(
	struct peer *peer, const struct forwards *forwards, const struct varlink_call *call)
{
	struct list_forwards_call asked;
	char reason[BROKER_REASON_SIZE];
	bool more;
	json_t *page;

	if (list_forwards_decode(call->parameters, &asked, reason) < 0) {
		fail_invalid(peer, reason);
		return;
	}
	page = make_page(forwards, peer->uid, asked.after, &more);
	peer_reply(peer, json_pack("{s:o, s:b}", "forwards", page, "more", more), NULL, 0);
}

void forward_handle_remove(
	struct peer *peer, struct forwards *forwards, const struct varlink_call *call)
{
	struct remove_forward_call asked;
	char reason[BROKER_REASON_SIZE];
	struct failure failure;

	if (remove_forward_decode(call->parameters, &asked, reason) < 0)
		fail_invalid(peer, reason);
	else if (forwards_remove(forwards, asked.id, peer->uid, &failure) < 0)
		peer_fail(peer, &failure);
	else
		peer_reply(peer, NULL, NULL, 0);
}
