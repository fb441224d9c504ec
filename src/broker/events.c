#include "broker/events.h"

#include "broker/access.h"
#include "broker/forward.h"
#include "broker/listing.h"

#include <string.h>
#include <time.h>

void events_listen(struct registry *registry, struct event_listener *listener)
{
	listener->next = registry->listeners;
	registry->listeners = listener;
}

void events_unlisten(struct registry *registry, struct event_listener *listener)
{
	for (struct event_listener **link = &registry->listeners; *link; link = &(*link)->next)
		if (*link == listener) {
			*link = listener->next;
			return;
		}
}

void events_tell(const struct registry *registry, const struct event *event)
{
	for (struct event_listener *listener = registry->listeners; listener;
		listener = listener->next)
		listener->take(listener->context, event);
}

const char *events_describe_network(const struct network *network, char *text)
{
	char subnet[SUBNET_TEXT_SIZE];

	ipv4_subnet_to_text(network->link.subnet, subnet);
	if (network->state == NETWORK_ABSENT)
		*text = '\0';
	else if (!*network->link.bridge)
		snprintf(text, BROKER_REASON_SIZE, "on %s", network->settings.uplink);
	else
		snprintf(text, BROKER_REASON_SIZE, "%s on bridge %s", subnet, network->link.bridge);
	return network_state_to_text(network->state);
}

void events_tell_network(const struct network *network)
{
	char text[BROKER_REASON_SIZE];
	struct event event = {.kind = BROKER_EVENT_NETWORK, .network = network->name};

	if (!network->registry->listeners)
		return;
	event.what = events_describe_network(network, text);
	event.text = *text ? text : NULL;
	events_tell(network->registry, &event);
}

void events_tell_interface(const struct interface *interface, const char *what, const char *text)
{
	events_tell(interface->network->registry, &(struct event){
							  .kind = BROKER_EVENT_INTERFACE,
							  .what = what,
							  .network = interface->network->name,
							  .interface = interface,
							  .has_owner = true,
							  .owner = interface->record.uid,
							  .text = text,
						  });
}

void events_tell_forward(
	const struct registry *registry, const struct forward *forward, const char *what)
{
	events_tell(registry, &(struct event){
				      .kind = BROKER_EVENT_FORWARD,
				      .what = what,
				      .network = forward->record.network,
				      .forward = forward,
				      .has_owner = true,
				      .owner = forward->record.uid,
			      });
}

void events_tell_warning(const struct network *network, const char *what, const char *text)
{
	events_tell(network->registry, &(struct event){
					       .kind = BROKER_EVENT_WARNING,
					       .what = what,
					       .network = network->name,
					       .text = text,
				       });
}

void events_tell_complaint(const struct network *network, const char *text)
{
	events_tell(network->registry, &(struct event){
					       .kind = BROKER_EVENT_WARNING,
					       .what = "dnsmasq",
					       .network = network->name,
					       .has_owner = true,
					       .owner = RECORDS_OWNER_UNKNOWN,
					       .text = text,
				       });
}

void events_tell_refusal(const struct registry *registry, uid_t uid, const struct failure *failure)
{
	events_tell(registry, &(struct event){
				      .kind = BROKER_EVENT_REFUSAL,
				      /* Without the interface's name. */
				      .what = strrchr(broker_error_name(failure->error), '.') + 1,
				      .has_owner = true,
				      .owner = uid,
				      .text = failure->reason,
			      });
}

/* Of a file that is no configuration nobody knows whom it is for. */
static void tell_mistake(void *context, const char *network, const char *mistake)
{
	events_tell(context, &(struct event){
				     .kind = BROKER_EVENT_CONFIGURATION,
				     .what = "mistake",
				     .network = network,
				     .has_owner = !network,
				     .owner = RECORDS_OWNER_UNKNOWN,
				     .text = mistake,
			     });
}

void events_tell_configuration(struct registry *registry)
{
	if (!registry->listeners)
		return;
	events_tell(registry, &(struct event){.kind = BROKER_EVENT_CONFIGURATION, .what = "read"});
	config_visit_mistakes(registry->config, tell_mistake, registry);
}

bool event_is_for(
	const struct registry *registry, const struct event *event, const struct credentials *user)
{
	const struct network *network;

	if (user->uid == 0)
		return true;
	if (event->has_owner)
		return event->owner == user->uid;
	if (!event->network)
		return true;
	network = registry_find_entry(registry, event->network);
	return network && access_is_granted(network, user);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

json_t *event_encode(const struct event *event, bool is_state)
{
	struct broker_interface interface;
	struct broker_forward forward;
	struct broker_event message = {
		.time_us = now_us(),
		.kind = event->kind,
		.what = event->what,
		.is_state = is_state,
		.network = event->network,
		.lease = event->lease,
		.has_uid = event->has_owner && event->owner != RECORDS_OWNER_UNKNOWN,
		.uid = event->owner,
		.text = event->text,
		.count = event->count,
	};

	if (event->interface) {
		listing_describe_interface(event->interface, &interface);
		message.interface = &interface;
	}
	if (event->forward) {
		forward_describe(event->forward, &forward);
		message.forward = &forward;
	}
	return broker_event_encode(&message);
}
