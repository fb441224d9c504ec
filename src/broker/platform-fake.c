#include "broker/platform-fake.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>

struct platform_timer {
	struct platform *platform;
	struct platform_timer *next;
	platform_timer_callback *callback;
	void *context;
	uint64_t delay_ms;
	bool runs;
};

struct platform *platform_fake_new(void)
{
	return calloc(1, sizeof(struct platform));
}

void platform_fake_free(struct platform *platform)
{
	subnet_uses_done(&platform->uses);
	free(platform);
}

void platform_set_events(
	struct platform *platform, const struct platform_events *events, void *context)
{
	platform->events = events;
	platform->context = context;
}

struct fake_network *platform_fake_network(struct platform *platform, const char *name)
{
	for (size_t i = 0; i < platform->networks_count; i++)
		if (strcmp(platform->networks[i].link.name, name) == 0)
			return &platform->networks[i];
	return NULL;
}

struct fake_interface *platform_fake_interface(struct platform *platform, uint32_t number)
{
	for (size_t i = 0; i < platform->interfaces_count; i++)
		if (platform->interfaces[i].link.number == number)
			return &platform->interfaces[i];
	return NULL;
}

int platform_visit_links(
	struct platform *platform, const struct platform_visitor *visitor, void *context)
{
	for (size_t i = 0; i < platform->networks_count; i++)
		visitor->network(context, &platform->networks[i].link);
	for (size_t i = 0; i < platform->interfaces_count; i++) {
		struct platform_interface link = platform->interfaces[i].link;

		visitor->interface(context, &link);
	}
	return 0;
}

int platform_list_uses(struct platform *platform, struct subnet_uses *uses)
{
	int error = 0;

	for (size_t i = 0; i < platform->uses.count && !error; i++)
		error = subnet_uses_add(uses, platform->uses.entries[i].subnet, "%s",
			platform->uses.entries[i].owner);
	for (size_t i = 0; i < platform->networks_count && !error; i++)
		error = subnet_uses_add(uses, platform->networks[i].link.subnet, "address of %s",
			platform->networks[i].link.bridge);
	return error;
}

bool platform_find_port_holder(struct platform *platform, uint16_t port, char *text)
{
	if (platform->port_holder)
		snprintf(text, PLATFORM_DETAIL_SIZE, "%s", platform->port_holder);
	return platform->port_holder != NULL;
}

int platform_find_problems(struct platform *platform, bool has_networks,
	platform_problem_found *found, void (*accept)(void *context, const char *rule),
	void *context)
{
	if (platform->port_holder)
		found(context, &(struct platform_problem){
				       .problem = "port-taken",
				       .text = platform->port_holder,
				       .mend = "a mend",
			       });
	if (has_networks)
		accept(context, "ip filter FORWARD: bridge0 out");
	return 0;
}

static int fail_with(int error, char *detail)
{
	if (error)
		snprintf(detail, PLATFORM_DETAIL_SIZE, "the fake failed");
	return error;
}

int platform_create_network(
	struct platform *platform, struct platform_network *network, char *detail)
{
	if (platform->create_error || platform->networks_count == FAKE_LINKS_MAX)
		return fail_with(platform->create_error, detail);
	snprintf(network->bridge, sizeof(network->bridge), "bridge%zu", platform->networks_count);
	platform->networks[platform->networks_count++] = (struct fake_network){.link = *network};
	return 0;
}

int platform_destroy_network(struct platform *platform, const char *name, char *detail)
{
	struct fake_network *network = platform_fake_network(platform, name);

	if (platform->destroy_error)
		return fail_with(platform->destroy_error, detail);
	if (network)
		*network = platform->networks[--platform->networks_count];
	return 0;
}

int platform_attach(struct platform *platform, const char *network,
	const struct platform_port *port, int ret_fds[PLATFORM_QUEUES_MAX], char *detail)
{
	struct fake_interface *added = &platform->interfaces[platform->interfaces_count];

	if (platform->attach_error)
		return fail_with(platform->attach_error, detail);
	if (platform_fake_interface(platform, port->number))
		return fail_with(-EEXIST, detail);
	if (platform->interfaces_count == FAKE_LINKS_MAX ||
		(!port->uplink && !platform_fake_network(platform, network)))
		return fail_with(-ENOENT, detail);
	*added = (struct fake_interface){.link.number = port->number, .port = *port};
	snprintf(added->link.network, sizeof(added->link.network), "%s", network);
	platform->interfaces_count++;
	for (uint32_t i = 0; i < port->queues && !port->named; i++)
		ret_fds[i] = eventfd(0, EFD_CLOEXEC);
	added->link.named = port->named;
	added->link.is_leased = port->named || (port->uplink != NULL && platform->uplinks_are_nics);
	added->link.mac = port->mac;
	return added->link.is_leased;
}

int platform_read_uplink(struct platform *platform, const char *name, uint32_t *ret_mtu)
{
	if (platform->uplink_error)
		return platform->uplink_error;
	*ret_mtu = 1400;
	return 0;
}

int platform_identify_process(
	struct platform *platform, pid_t pid, struct platform_process *ret_process)
{
	*ret_process = (struct platform_process){.pid = pid, .id = 42};
	return 0;
}

bool platform_shows_names(struct platform *platform, pid_t pid)
{
	return !platform->hides_names;
}

int platform_watch_process(
	struct platform *platform, uint32_t number, const struct platform_process *process)
{
	if (platform->process_error)
		return platform->process_error;
	platform->watched_number = number;
	platform->watched_process = *process;
	return 0;
}

void platform_unwatch_process(struct platform *platform, uint32_t number)
{
	if (platform->watched_number == number)
		platform->watched_number = 0;
}

int platform_open_vhosts(
	struct platform *platform, uint32_t count, int ret_fds[PLATFORM_QUEUES_MAX], char *detail)
{
	if (platform->vhost_error)
		return fail_with(platform->vhost_error, detail);
	for (uint32_t i = 0; i < count; i++)
		ret_fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	return 0;
}

static void drop_interface(struct platform *platform, uint32_t number)
{
	struct fake_interface *interface = platform_fake_interface(platform, number);

	if (interface)
		*interface = platform->interfaces[--platform->interfaces_count];
}

/* Its end is told later, by platform_fake_close_interface(), as a kernel does. */
int platform_revoke(struct platform *platform, uint32_t number, char *detail)
{
	if (!platform_fake_interface(platform, number))
		return -ENOENT;
	drop_interface(platform, number);
	return 0;
}

void platform_interface_name(uint32_t number, char name[IFNAMSIZ])
{
	snprintf(name, IFNAMSIZ, "tap%u", number);
}

int platform_force_buffers(struct platform *platform, const int *sockets, size_t count,
	uint32_t bytes, uint32_t *ret_bytes, char *detail)
{
	*ret_bytes = bytes;
	return 0;
}

int platform_count_traffic(struct platform *platform, platform_traffic_found *found, void *context)
{
	for (size_t i = 0; i < platform->interfaces_count; i++) {
		const struct fake_interface *interface = &platform->interfaces[i];

		found(context, interface->link.number, &interface->host_to_vm,
			&interface->vm_to_host);
	}
	return 0;
}

int platform_apply_guard(struct platform *platform, char *detail)
{
	platform->guard_applied++;
	return fail_with(platform->guard_error, detail);
}

int platform_apply_forwards(struct platform *platform, struct platform_forward *forwards,
	size_t count, bool ends_flows, char *detail)
{
	int made = 0;

	if (platform->forwards_error)
		return platform->forwards_error;
	for (size_t i = 0; i < count; i++) {
		forwards[i].error =
			forwards[i].listen.port == platform->refused_port ? -EADDRINUSE : 0;
		made += !forwards[i].error;
	}
	platform->forwards_count = count;
	for (size_t i = 0; i < count && i < FAKE_LINKS_MAX; i++)
		platform->forwards[i] = forwards[i];
	platform->forwards_ended_flows = ends_flows;
	platform->forwards_applied++;
	return made;
}

int platform_find_listener(struct platform *platform, uint8_t protocol,
	const struct endpoint *endpoint, struct platform_listener *ret_listener)
{
	*ret_listener = (struct platform_listener){
		.endpoint = {.is_ipv6 = endpoint->is_ipv6, .port = endpoint->port},
	};
	return platform->listener_port == endpoint->port ? 1 : 0;
}

uint32_t platform_first_unprivileged_port(struct platform *platform)
{
	return 1024;
}

int platform_apply_nat(struct platform *platform, char *detail)
{
	platform->nat_applied++;
	return fail_with(platform->nat_error, detail);
}

int platform_start_dhcp(struct platform *platform, const char *name,
	const struct platform_service *service, char *detail)
{
	struct fake_network *network = platform_fake_network(platform, name);

	if (platform->dhcp_error || !network)
		return fail_with(network ? platform->dhcp_error : -ENOENT, detail);
	if (network->dhcp_runs)
		return 1;
	network->dhcp_runs = true;
	network->service = *service;
	return platform->dhcp_serves_at_once;
}

int platform_stop_dhcp(struct platform *platform, const char *name, char *detail)
{
	struct fake_network *network = platform_fake_network(platform, name);

	if (network)
		network->dhcp_runs = false;
	return 0;
}

int platform_reload_dhcp(struct platform *platform, const char *name)
{
	struct fake_network *network = platform_fake_network(platform, name);

	if (!network || !network->dhcp_runs)
		return -ESRCH;
	network->reloads++;
	return 0;
}

void platform_fake_say_line(struct platform *platform, const char *network, const char *line)
{
	platform->events->dhcp_line(platform->context, network, line);
}

void platform_fake_say_started(struct platform *platform, const char *network)
{
	platform_fake_say_line(platform, network, "dnsmasq: started, version 2.90 cachesize 150");
}

void platform_fake_say_read(struct platform *platform, const char *network)
{
	char line[96];

	snprintf(line, sizeof(line), "dnsmasq-dhcp: read /run/networks/%s.hosts", network);
	platform_fake_say_line(platform, network, line);
}

void platform_fake_end_dhcp(struct platform *platform, const char *name)
{
	struct fake_network *network = platform_fake_network(platform, name);

	if (network)
		network->dhcp_runs = false;
	platform->events->dhcp_ended(platform->context, name);
}

void platform_fake_close_interface(struct platform *platform, uint32_t number)
{
	drop_interface(platform, number);
	platform->events->interface_gone(platform->context, number);
}

void platform_fake_remove_bridge(struct platform *platform, const char *name)
{
	struct fake_network *network = platform_fake_network(platform, name);

	if (network)
		*network = platform->networks[--platform->networks_count];
	platform->events->network_gone(platform->context, name);
}

int platform_timer_new(struct platform *platform, platform_timer_callback *callback, void *context,
	struct platform_timer **ret_timer)
{
	struct platform_timer *timer = calloc(1, sizeof(*timer));

	if (!timer)
		return -ENOMEM;
	timer->platform = platform;
	timer->callback = callback;
	timer->context = context;
	timer->next = platform->timers;
	platform->timers = timer;
	*ret_timer = timer;
	return 0;
}

void platform_timer_start(struct platform_timer *timer, uint64_t delay_ms)
{
	timer->delay_ms = delay_ms;
	timer->runs = true;
}

void platform_timer_stop(struct platform_timer *timer)
{
	timer->runs = false;
}

void platform_timer_free(struct platform_timer *timer)
{
	struct platform_timer **link;

	if (!timer)
		return;
	for (link = &timer->platform->timers; *link != timer; link = &(*link)->next)
		;
	*link = timer->next;
	free(timer);
}

size_t platform_fake_fire_timers(struct platform *platform, uint64_t delay_ms)
{
	size_t fired = 0;

	for (struct platform_timer *timer = platform->timers; timer; timer = timer->next) {
		if (!timer->runs || timer->delay_ms != delay_ms)
			continue;
		timer->runs = false;
		fired++;
		timer->callback(timer->context);
	}
	return fired;
}

void platform_randomize(struct platform *platform, void *bytes, size_t size)
{
	memset(bytes, platform->next_random++, size);
}

int platform_announce_names(
	struct platform *platform, const struct platform_network *network, const char *domain)
{
	return 0;
}

int platform_read_resolvers(
	struct platform *platform, char ret_text[PLATFORM_RESOLVERS_SIZE], size_t *ret_size)
{
	if (!platform->resolvers)
		return -ENOENT;
	*ret_size = strlen(platform->resolvers);
	memcpy(ret_text, platform->resolvers, *ret_size);
	return 0;
}

int platform_start_capture(struct platform *platform, const struct platform_capture *wanted,
	uint32_t *ret_number, int *ret_stream, char *detail)
{
	if (platform->capture_error)
		return fail_with(platform->capture_error, detail);
	platform->captures_running++;
	*ret_number = ++platform->captures_started;
	*ret_stream = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

int platform_capture_interface(struct platform *platform, uint32_t capture, uint32_t number,
	const char *comment, char *detail)
{
	size_t used = strlen(platform->captured);

	snprintf(platform->captured + used, sizeof(platform->captured) - used, "%u %u %s\n",
		capture, number, comment);
	return 0;
}

void platform_end_capture(struct platform *platform, uint32_t capture)
{
	platform->captures_running--;
}
