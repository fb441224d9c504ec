/*
 * firewalld lets our bridges through when they are in a zone that does: told by D-Bus
 * (firewalld.dbus(5)), again whenever it starts or reloads, for it then forgets them.
 */
#include "broker/linux.h"

#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>

#define NAME  "org.fedoraproject.FirewallD1"
#define PATH  "/org/fedoraproject/FirewallD1"
#define ZONES "org.fedoraproject.FirewallD1.zone"
/* While it starts it does not answer for many seconds. */
#define CALL_TIMEOUT_US (UINT64_C(60) * 1000000)
/* At our end: what it takes to remove some bridges. */
#define END_PATIENCE_US (UINT64_C(3) * 1000000)
/* A bus that was not there, or went, is looked for again. */
#define RETRY_MS 30000

/* Ours is shipped with the program; "trusted" is always there, and opens all of the host as well.
 */
static const char *const zones[] = {"vmnet", "trusted"};

struct zoned_bridge {
	char name[IFNAMSIZ];
	size_t zone; /* in zones: where it is, or is asked to be */
};

struct firewalld {
	struct platform *platform;
	sd_bus *bus; /* NULL: none */
	struct platform_timer *retry;
	struct zoned_bridge *bridges;
	size_t count;
	unsigned int leaving; /* removals that are not answered yet */
	char problem[PLATFORM_DETAIL_SIZE];
};

/* A call on its way. */
struct zone_call {
	struct firewalld *firewalld;
	char bridge[IFNAMSIZ];
	bool leaves;
};

static struct zoned_bridge *find_bridge(const struct firewalld *firewalld, const char *name)
{
	for (size_t i = 0; i < firewalld->count; i++)
		if (strcmp(firewalld->bridges[i].name, name) == 0)
			return &firewalld->bridges[i];
	return NULL;
}

static void free_call(void *userdata)
{
	struct zone_call *call = userdata;

	if (call->leaves)
		call->firewalld->leaving--;
	free(call);
}

static int make_message(struct firewalld *firewalld, const char *method, const char *zone,
	const char *bridge, sd_bus_message **ret_message)
{
	int error = sd_bus_message_new_method_call(
		firewalld->bus, ret_message, NAME, PATH, ZONES, method);

	if (error >= 0)
		error = sd_bus_message_append(*ret_message, "ss", zone, bridge);
	/* Where it does not run nobody wants it to. */
	if (error >= 0)
		error = sd_bus_message_set_auto_start(*ret_message, false);
	return error < 0 ? error : 0;
}

/* A failure is one of the bus, which is looked for again then. */
static void ask(struct firewalld *firewalld, const struct zoned_bridge *bridge, bool leaves,
	sd_bus_message_handler_t handler)
{
	__attribute__((__cleanup__(sd_bus_message_unrefp))) sd_bus_message *message = NULL;
	struct zone_call *call = calloc(1, sizeof(*call));
	sd_bus_slot *slot = NULL;
	int error = call ? make_message(firewalld, leaves ? "removeInterface" : "addInterface",
				   zones[bridge->zone], bridge->name, &message)
			 : -ENOMEM;

	if (!error)
		error = sd_bus_call_async(
			firewalld->bus, &slot, message, handler, call, CALL_TIMEOUT_US);
	if (error < 0) {
		free(call);
		platform_timer_start(firewalld->retry, RETRY_MS);
		return;
	}
	*call = (struct zone_call){.firewalld = firewalld, .leaves = leaves};
	memcpy(call->bridge, bridge->name, sizeof(call->bridge));
	firewalld->leaving += leaves;
	sd_bus_slot_set_destroy_callback(slot, free_call);
	sd_bus_slot_set_floating(slot, true);
	sd_bus_slot_unref(slot);
}

/* Each bridge meets the same one: it is told of once. */
static void note_problem(struct firewalld *firewalld, const char *bridge, const char *problem)
{
	if (strncmp(problem, firewalld->problem, sizeof(firewalld->problem) - 1) == 0)
		return;
	snprintf(firewalld->problem, sizeof(firewalld->problem), "%s", problem);
	if (*problem)
		firewalld->platform->events->firewalld_refused(
			firewalld->platform->context, bridge, firewalld->problem);
}

/* That nobody is there, or just ended, is no refusal. */
static bool is_absent(const sd_bus_error *error)
{
	return sd_bus_error_has_name(error, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_NO_REPLY) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_DISCONNECTED);
}

static bool says(const sd_bus_error *error, const char *code)
{
	return error->message && strncmp(error->message, code, strlen(code)) == 0;
}

static int handle_added(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
	const struct zone_call *call = userdata;
	const sd_bus_error *error = sd_bus_message_get_error(reply);
	struct firewalld *firewalld = call->firewalld;
	struct zoned_bridge *bridge = find_bridge(firewalld, call->bridge);

	if (!bridge)
		return 0;
	/* ZONE_CONFLICT: the administrator has a zone for it. */
	if (!error || says(error, "ALREADY_ENABLED") || says(error, "ZONE_ALREADY_SET") ||
		says(error, "ZONE_CONFLICT")) {
		note_problem(firewalld, bridge->name, bridge->zone ? "INVALID_ZONE: vmnet" : "");
	} else if (says(error, "INVALID_ZONE") && bridge->zone + 1 < array_length(zones)) {
		bridge->zone++;
		ask(firewalld, bridge, false, handle_added);
	} else if (!is_absent(error)) {
		note_problem(
			firewalld, bridge->name, error->message ? error->message : error->name);
	}
	return 0;
}

static int handle_removed(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
	return 0;
}

/* It knows none of them any more, and maybe our zone now. */
static void ask_for_all(struct firewalld *firewalld)
{
	for (size_t i = 0; i < firewalld->count; i++) {
		firewalld->bridges[i].zone = 0;
		ask(firewalld, &firewalld->bridges[i], false, handle_added);
	}
}

static int handle_reloaded(sd_bus_message *message, void *userdata, sd_bus_error *unused)
{
	ask_for_all(userdata);
	return 0;
}

static int handle_owner(sd_bus_message *message, void *userdata, sd_bus_error *unused)
{
	const char *name, *before, *now;
	struct firewalld *firewalld = userdata;

	if (sd_bus_message_read(message, "sss", &name, &before, &now) < 0)
		return 0;
	if (*now)
		ask_for_all(firewalld);
	else
		firewalld->problem[0] = '\0';
	return 0;
}

static int handle_lost(sd_bus_message *message, void *userdata, sd_bus_error *unused)
{
	struct firewalld *firewalld = userdata;

	platform_timer_start(firewalld->retry, RETRY_MS);
	return 0;
}

static int watch_bus(struct firewalld *firewalld)
{
	sd_bus *bus = firewalld->bus;
	int error = sd_bus_match_signal_async(
		bus, NULL, NAME, PATH, NAME, "Reloaded", handle_reloaded, NULL, firewalld);

	if (error >= 0)
		error = sd_bus_add_match_async(bus, NULL,
			"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',"
			"arg0='" NAME "'",
			handle_owner, NULL, firewalld);
	if (error >= 0)
		error = sd_bus_match_signal_async(bus, NULL, "org.freedesktop.DBus.Local",
			"/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local", "Disconnected",
			handle_lost, NULL, firewalld);
	if (error >= 0)
		error = sd_bus_attach_event(bus, firewalld->platform->event, 0);
	return error < 0 ? error : 0;
}

static void close_bus(struct firewalld *firewalld)
{
	if (!firewalld->bus)
		return;
	sd_bus_detach_event(firewalld->bus);
	sd_bus_close(firewalld->bus);
	firewalld->bus = sd_bus_unref(firewalld->bus);
}

/* A host without a bus has no firewalld either. */
static void connect_bus(struct firewalld *firewalld)
{
	int error = sd_bus_open_system(&firewalld->bus);

	if (error >= 0)
		error = watch_bus(firewalld);
	if (error < 0) {
		close_bus(firewalld);
		platform_timer_start(firewalld->retry, RETRY_MS);
		return;
	}
	ask_for_all(firewalld);
}

static void handle_retry(void *context)
{
	struct firewalld *firewalld = context;

	close_bus(firewalld);
	if (firewalld->count > 0)
		connect_bus(firewalld);
}

int firewalld_add(struct firewalld *firewalld, const char *network)
{
	struct zoned_bridge *bridges;
	char name[IFNAMSIZ];

	/* What is in another namespace is not before the host's firewall. */
	if (firewalld->platform->is_rootless)
		return 0;
	bridge_interface_name(firewalld->platform->instance, network, name);
	if (find_bridge(firewalld, name))
		return 0;
	bridges =
		reallocarray(firewalld->bridges, firewalld->count + 1, sizeof(*firewalld->bridges));
	if (!bridges)
		return -ENOMEM;
	firewalld->bridges = bridges;
	bridges += firewalld->count++;
	*bridges = (struct zoned_bridge){.zone = 0};
	memcpy(bridges->name, name, sizeof(name));
	if (firewalld->bus)
		ask(firewalld, bridges, false, handle_added);
	else
		connect_bus(firewalld);
	return 0;
}

void firewalld_remove(struct firewalld *firewalld, const char *network)
{
	struct zoned_bridge *bridge;
	char name[IFNAMSIZ];

	bridge_interface_name(firewalld->platform->instance, network, name);
	bridge = find_bridge(firewalld, name);
	if (!bridge)
		return;
	if (firewalld->bus)
		ask(firewalld, bridge, true, handle_removed);
	*bridge = firewalld->bridges[--firewalld->count];
}

const char *firewalld_problem(const struct firewalld *firewalld)
{
	return firewalld->problem;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* polkit asks the bus who wants it, and whoever has gone is not allowed to. */
static void await_removals(struct firewalld *firewalld)
{
	const uint64_t end_us = now_us() + END_PATIENCE_US;

	sd_bus_detach_event(firewalld->bus);
	while (firewalld->leaving > 0 && now_us() < end_us) {
		int result = sd_bus_process(firewalld->bus, NULL);

		if (result == 0)
			result = sd_bus_wait(firewalld->bus, end_us - now_us());
		if (result < 0)
			break;
	}
}

void firewalld_free(struct firewalld *firewalld)
{
	if (!firewalld)
		return;
	if (firewalld->bus)
		await_removals(firewalld);
	close_bus(firewalld);
	platform_timer_free(firewalld->retry);
	free(firewalld->bridges);
	free(firewalld);
}
DEFINE_CLEANUP(struct firewalld, firewalld_free)

int firewalld_new(struct platform *platform, struct firewalld **ret_firewalld)
{
	cleanup_with(firewalld_free) struct firewalld *firewalld = calloc(1, sizeof(*firewalld));
	int error;

	if (!firewalld)
		return -ENOMEM;
	firewalld->platform = platform;
	error = platform_timer_new(platform, handle_retry, firewalld, &firewalld->retry);
	if (error)
		return error;
	*ret_firewalld = take_ptr(firewalld);
	return 0;
}
