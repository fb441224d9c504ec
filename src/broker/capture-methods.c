#include "broker/capture-methods.h"

#include "base/log.h"

void capture_handle(struct peer *peer, struct registry *registry, struct capture **held,
	const struct varlink_call *call)
{
	struct capture_call wanted;
	char reason[BROKER_REASON_SIZE];
	struct failure failure;
	size_t interfaces;
	int stream;

	if (capture_call_decode(call->parameters, &wanted, reason) < 0) {
		failure_set(&failure, BROKER_ERROR_INVALID_REQUEST, "%s", reason);
		peer_fail(peer, &failure);
		return;
	}
	capture_free(take_ptr(*held));
	if (capture_start(registry, &peer->credentials, &wanted, held, &stream, &interfaces,
		    &failure) < 0) {
		peer_fail(peer, &failure);
		return;
	}
	log_info(peer->tag, "user %d captures on %s %s", (int)peer->uid,
		*wanted.interface ? "interface" : "network",
		*wanted.interface ? wanted.interface : wanted.network);
	peer_reply(peer, json_pack("{s:i, s:I}", "stream", 0, "interfaces", (json_int_t)interfaces),
		&stream, 1);
}
