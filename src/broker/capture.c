#include "broker/capture.h"

#include "base/log.h"
#include "broker/access.h"
#include "broker/bridged.h"
#include "broker/events.h"
#include "broker/policy.h"
#include "broker/rate-limit.h"
#include "broker/vm-names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

struct capture {
	struct capture *next; /* registry->captures */
	struct registry *registry;
	struct event_listener listener;
	uid_t uid;
	uint32_t number;
	bool is_whole; /* of a network, with interfaces that come later */
	char network[NETWORK_NAME_SIZE];
};

/* Of its description, for whoever reads the capture: "web 192.168.64.2 52:54:00:00:00:01 user
 * 1000".
 */
static void make_comment(const struct interface *interface, char comment[PLATFORM_COMMENT_SIZE])
{
	const struct interface_record *record = &interface->record;
	char mac[MAC_TEXT_SIZE], address[INET_ADDRSTRLEN] = "";

	if (record->uid == RECORDS_OWNER_UNKNOWN) {
		*comment = '\0';
		return;
	}
	mac_to_text(record->mac, mac);
	if (record->address.s_addr)
		ipv4_to_text(record->address, address);
	snprintf(comment, PLATFORM_COMMENT_SIZE, "%s%s%s%s%s user %u", vm_names_get(interface),
		*vm_names_get(interface) ? " " : "", address, *address ? " " : "", mac,
		(unsigned int)record->uid);
}

static bool is_visible(const struct capture *capture, const struct interface *interface)
{
	return capture->uid == 0 || interface->record.uid == capture->uid;
}

static int add(const struct capture *capture, const struct interface *interface, char *detail)
{
	char comment[PLATFORM_COMMENT_SIZE];

	make_comment(interface, comment);
	return platform_capture_interface(
		capture->registry->platform, capture->number, interface->number, comment, detail);
}

static void take_event(void *context, const struct event *event)
{
	const struct capture *capture = context;
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error;

	if (!capture->is_whole || event->kind != BROKER_EVENT_INTERFACE ||
		strcmp(event->what, "created") != 0 ||
		strcmp(event->network, capture->network) != 0 ||
		!is_visible(capture, event->interface))
		return;
	error = add(capture, event->interface, detail);
	/* A capture that has ended by itself is no news. */
	if (error && error != -ESRCH && error != -ENOENT)
		log_warn(event->interface->network->tag,
			"a new interface could not be added to a capture: %s",
			*detail ? detail : strerror(-error));
}

static void count_captures(
	const struct registry *registry, uid_t uid, size_t *ret_own, size_t *ret_users)
{
	*ret_own = *ret_users = 0;
	for (const struct capture *capture = registry->captures; capture; capture = capture->next) {
		*ret_own += capture->uid == uid;
		*ret_users += capture->uid != 0;
	}
}

static size_t count_interfaces(const struct network *network, uid_t uid)
{
	size_t count = 0;

	for (const struct interface *found = network->interfaces; found; found = found->next)
		count += found->record.uid == uid;
	return count;
}

static const struct interface *find_interface(const struct registry *registry, const char *name)
{
	char found_name[IFNAMSIZ];

	for (const struct network *network = registry->networks; network; network = network->next)
		for (const struct interface *found = network->interfaces; found;
			found = found->next) {
			platform_interface_name(found->number, found_name);
			if (strcmp(found_name, name) == 0)
				return found;
		}
	return NULL;
}

/* That there is one of somebody else's is not said. */
static int choose_interface(struct registry *registry, const struct credentials *user,
	const char *name, const struct interface **ret_interface, struct failure *failure)
{
	const struct interface *interface = find_interface(registry, name);

	if (!interface || (user->uid != 0 && interface->record.uid != user->uid))
		return failure_set(failure, BROKER_ERROR_NOT_FOUND,
			"there is no interface \"%s\" of yours; ListInterfaces tells which there "
			"are",
			name);
	*ret_interface = interface;
	return 0;
}

static int choose_network(struct registry *registry, const struct credentials *user,
	const char *name, const struct network **ret_network, struct failure *failure)
{
	const struct network *network = registry_find(registry, name);
	int error = network ? access_check(network, user, failure)
			    : registry_fail_unknown(registry, name, user, failure);

	if (!error && network->state == NETWORK_ABSENT)
		error = failure_set(failure, BROKER_ERROR_NOT_FOUND,
			"network \"%s\" does not run: there is nothing to capture; start a VM on "
			"it first",
			name);
	if (!error)
		*ret_network = network;
	return error;
}

static int start(struct capture *capture, const struct network *network,
	const struct capture_call *call, int *ret_stream, struct failure *failure)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	const struct platform_capture wanted = {
		.network = network->name,
		/* One of mode bridged has no link of its own whose end could be seen. */
		.until_network = capture->is_whole && !network_is_bridged(network),
		.snaplen = call->snaplen,
		.count = call->count,
	};
	int error = platform_start_capture(
		capture->registry->platform, &wanted, &capture->number, ret_stream, detail);

	if (!error)
		return 0;
	return failure_set(failure,
		error == -ENOSPC ? BROKER_ERROR_QUOTA_EXCEEDED : BROKER_ERROR_CREATE_FAILURE,
		"the capture could not be started: %s", *detail ? detail : strerror(-error));
}

/* only NULL: all that are for the one who asks. One that has just gone is none. */
static int add_interfaces(struct capture *capture, const struct network *network,
	const struct interface *only, size_t *ret_count, struct failure *failure)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	size_t count = 0;

	for (const struct interface *found = network->interfaces; found; found = found->next) {
		int error;

		if ((only && found != only) || !is_visible(capture, found))
			continue;
		error = add(capture, found, detail);
		if (error && error != -ENOENT)
			return failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
				"the capture could not be started: %s",
				*detail ? detail : strerror(-error));
		count += !error;
	}
	*ret_count = count;
	return 0;
}

int capture_start(struct registry *registry, const struct credentials *user,
	const struct capture_call *call, struct capture **ret_capture, int *ret_stream,
	size_t *ret_interfaces, struct failure *failure)
{
	cleanup_with(capture_free) struct capture *capture = NULL;
	cleanup_fd int stream = -1;
	const struct interface *interface = NULL;
	const struct network *network = NULL;
	size_t own, of_users;
	int error =
		*call->interface ? choose_interface(
					   registry, user, call->interface, &interface, failure)
				 : choose_network(registry, user, call->network, &network, failure);

	count_captures(registry, user->uid, &own, &of_users);
	if (!error)
		error = policy_check_capture(user->uid, own, of_users, failure);
	if (error)
		return error;
	if (interface)
		network = interface->network;
	error = policy_pace_capture(user->uid, interface ? 1 : count_interfaces(network, user->uid),
		rate_limit_now_ms(), &registry->captures_free_at_ms, failure);
	if (error)
		return error;
	capture = calloc(1, sizeof(*capture));
	if (!capture)
		return failure_set(failure, BROKER_ERROR_INTERNAL, "memory is out");
	capture->registry = registry;
	capture->uid = user->uid;
	capture->is_whole = !interface;
	memcpy(capture->network, network->name, sizeof(capture->network));
	error = start(capture, network, call, &stream, failure);
	if (!error)
		error = add_interfaces(capture, network, interface, ret_interfaces, failure);
	if (error)
		return error;
	capture->listener = (struct event_listener){.take = take_event, .context = capture};
	events_listen(registry, &capture->listener);
	capture->next = registry->captures;
	registry->captures = capture;
	*ret_stream = take_fd(&stream);
	*ret_capture = take_ptr(capture);
	return 0;
}

void capture_free(struct capture *capture)
{
	struct capture **link;

	if (!capture)
		return;
	events_unlisten(capture->registry, &capture->listener);
	for (link = &capture->registry->captures; *link; link = &(*link)->next)
		if (*link == capture) {
			*link = capture->next;
			break;
		}
	if (capture->number)
		platform_end_capture(capture->registry->platform, capture->number);
	free(capture);
}
