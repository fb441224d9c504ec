#include "broker/dhcp.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <assert.h>
#include <string.h>

#define START_TIMEOUT_MS 10000
#define BACK_OFF_MS      500
#define BACK_OFF_MAX_MS  30000
#define BACK_OFF_DOUBLE  6 /* times */
#define READ_TIMEOUT_MS  1000
#define PROVEN_MS        10000 /* having served so long, its death is the first one again */

enum dhcp_event {
	EVENT_READY,
	EVENT_READ,
	EVENT_END,
	EVENT_TIMER,
	EVENT_COUNT,
};

static void give_tag(const struct dhcp *dhcp, char tag[48])
{
	snprintf(tag, 48, "network %s", dhcp->network);
}

bool dhcp_wait_for_hosts(struct dhcp *dhcp, struct dhcp_waiter *waiter)
{
	if (!dhcp->is_reading)
		return false;
	waiter->dhcp = dhcp;
	/* What it reads now may have been opened before the file was written. */
	waiter->reads_left = dhcp->reload_wanted ? 2 : 1;
	waiter->next = dhcp->waiters;
	dhcp->waiters = waiter;
	return true;
}

void dhcp_waiter_cancel(struct dhcp_waiter *waiter)
{
	struct dhcp_waiter **link;

	if (!waiter->dhcp)
		return;
	for (link = &waiter->dhcp->waiters; *link != waiter; link = &(*link)->next)
		;
	*link = waiter->next;
	waiter->dhcp = NULL;
}

static struct dhcp_waiter *find_finished(const struct dhcp *dhcp)
{
	for (struct dhcp_waiter *waiter = dhcp->waiters; waiter; waiter = waiter->next)
		if (waiter->reads_left == 0)
			return waiter;
	return NULL;
}

/* Counts a reading for every waiter, or the last one. A call-back may cancel any of them. */
static void release_waiters(struct dhcp *dhcp, bool all)
{
	struct dhcp_waiter *finished;

	for (struct dhcp_waiter *waiter = dhcp->waiters; waiter; waiter = waiter->next)
		waiter->reads_left = all ? 0 : waiter->reads_left - 1;
	while ((finished = find_finished(dhcp))) {
		dhcp_waiter_cancel(finished);
		finished->done(finished->context);
	}
}

static bool reads_hosts(const struct dhcp *dhcp)
{
	return dhcp->service.dhcp || dhcp->service.router_advertisement;
}

static void start_reading(struct dhcp *dhcp)
{
	if (!reads_hosts(dhcp) && !dhcp->service.dns)
		return;
	dhcp->is_reading = true;
	platform_timer_start(dhcp->read_timer, READ_TIMEOUT_MS);
}

static void stop_reading(struct dhcp *dhcp)
{
	dhcp->is_reading = false;
	platform_timer_stop(dhcp->read_timer);
}

static void send_reload(struct dhcp *dhcp)
{
	char tag[48];
	int error = platform_reload_dhcp(dhcp->platform, dhcp->network);

	dhcp->reload_wanted = false;
	if (error) {
		give_tag(dhcp, tag);
		log_warn(tag, "dnsmasq could not be told of new hosts: %s", strerror(-error));
	} else {
		start_reading(dhcp);
	}
}

static void enter_state(struct dhcp *dhcp, enum dhcp_state state)
{
	static const uint64_t timeouts_ms[] = {
		[DHCP_STOPPED] = 0,
		[DHCP_STARTING] = START_TIMEOUT_MS,
		[DHCP_SERVING] = PROVEN_MS,
		[DHCP_WAITING] = BACK_OFF_MS,
	};
	static_assert(array_length(timeouts_ms) == DHCP_STATE_COUNT, "one time-out a state");
	uint64_t delay_ms = timeouts_ms[state];
	uint32_t doublings = dhcp->deaths < BACK_OFF_DOUBLE ? dhcp->deaths : BACK_OFF_DOUBLE;

	dhcp->state = state;
	if (state == DHCP_WAITING)
		delay_ms <<= doublings;
	if (state == DHCP_WAITING && delay_ms > BACK_OFF_MAX_MS)
		delay_ms = BACK_OFF_MAX_MS;
	if (state == DHCP_STOPPED)
		platform_timer_stop(dhcp->timer);
	else
		platform_timer_start(dhcp->timer, delay_ms);
	if (state == DHCP_SERVING)
		return;
	stop_reading(dhcp);
	release_waiters(dhcp, true);
}

static void become_serving(struct dhcp *dhcp)
{
	enter_state(dhcp, DHCP_SERVING);
	/* It says so first, and then reads. */
	start_reading(dhcp);
	dhcp->owner->serving(dhcp->context);
}

/* Of an earlier front: what it read last is what that one wrote. */
static void take_over(struct dhcp *dhcp)
{
	enter_state(dhcp, DHCP_SERVING);
	send_reload(dhcp);
	dhcp->owner->serving(dhcp->context);
}

static void fail(struct dhcp *dhcp, const char *reason)
{
	char tag[48];

	give_tag(dhcp, tag);
	log_warn(tag, "dnsmasq did not start to serve: %s", reason);
	dhcp->deaths++;
	enter_state(dhcp, DHCP_WAITING);
	dhcp->owner->failed(dhcp->context, reason);
}

static void try_start(struct dhcp *dhcp)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int result;

	*dhcp->last_warning = '\0';
	dhcp->reload_wanted = false;
	enter_state(dhcp, DHCP_STARTING);
	result = platform_start_dhcp(dhcp->platform, dhcp->network, &dhcp->service, detail);
	if (result < 0)
		fail(dhcp, *detail ? detail : strerror(-result));
	else if (result == 1)
		take_over(dhcp);
}

static void finish_reading(struct dhcp *dhcp, bool all)
{
	stop_reading(dhcp);
	if (dhcp->reload_wanted)
		send_reload(dhcp);
	release_waiters(dhcp, all || !dhcp->is_reading);
}

static void take_reading(struct dhcp *dhcp)
{
	if (dhcp->is_reading)
		finish_reading(dhcp, false);
}

static void handle_read_timer(void *context)
{
	struct dhcp *dhcp = context;
	char tag[48];

	give_tag(dhcp, tag);
	log_warn(tag, "dnsmasq did not say within a second that it has read its files");
	finish_reading(dhcp, true);
}

static void end_while_starting(struct dhcp *dhcp)
{
	fail(dhcp, *dhcp->last_warning ? dhcp->last_warning : "it ended without a word");
}

static void end_while_serving(struct dhcp *dhcp)
{
	char tag[48];

	give_tag(dhcp, tag);
	log_warn(tag, "dnsmasq ended%s%s; it is started again", *dhcp->last_warning ? ": " : "",
		dhcp->last_warning);
	dhcp->owner->warned(dhcp->context, "dnsmasq ended; it is started again");
	if (dhcp->deaths++ == 0)
		try_start(dhcp);
	else
		enter_state(dhcp, DHCP_WAITING);
}

static void time_out_start(struct dhcp *dhcp)
{
	char detail[PLATFORM_DETAIL_SIZE];

	platform_stop_dhcp(dhcp->platform, dhcp->network, detail);
	fail(dhcp, "it said nothing for 10 seconds");
}

static void forget_deaths(struct dhcp *dhcp)
{
	dhcp->deaths = 0;
}

/* Empty: the event means nothing in that state. */
static void (*const actions[DHCP_STATE_COUNT][EVENT_COUNT])(struct dhcp *) = {
	[DHCP_STARTING] =
		{
			[EVENT_READY] = become_serving,
			[EVENT_END] = end_while_starting,
			[EVENT_TIMER] = time_out_start,
		},
	[DHCP_SERVING] =
		{
			[EVENT_READ] = take_reading,
			[EVENT_END] = end_while_serving,
			[EVENT_TIMER] = forget_deaths,
		},
	[DHCP_WAITING] =
		{
			[EVENT_TIMER] = try_start,
		},
};

static void handle(struct dhcp *dhcp, enum dhcp_event event)
{
	if (actions[dhcp->state][event])
		actions[dhcp->state][event](dhcp);
}

static void handle_timer(void *context)
{
	handle(context, EVENT_TIMER);
}

int dhcp_init(struct dhcp *dhcp, struct platform *platform, const char *network,
	const struct dhcp_owner *owner, void *context)
{
	int error;

	*dhcp = (struct dhcp){
		.platform = platform,
		.network = network,
		.owner = owner,
		.context = context,
	};
	error = platform_timer_new(platform, handle_timer, dhcp, &dhcp->timer);
	if (!error)
		error = platform_timer_new(platform, handle_read_timer, dhcp, &dhcp->read_timer);
	return error;
}

void dhcp_done(struct dhcp *dhcp)
{
	platform_timer_free(dhcp->timer);
	platform_timer_free(dhcp->read_timer);
	dhcp->timer = NULL;
	dhcp->read_timer = NULL;
}

void dhcp_start(struct dhcp *dhcp, const struct platform_service *service)
{
	dhcp->service = *service;
	if (dhcp->state == DHCP_STOPPED)
		try_start(dhcp);
}

void dhcp_stop(struct dhcp *dhcp)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	char tag[48];
	int error;

	if (dhcp->state == DHCP_STOPPED)
		return;
	enter_state(dhcp, DHCP_STOPPED);
	dhcp->deaths = 0;
	dhcp->reload_wanted = false;
	error = platform_stop_dhcp(dhcp->platform, dhcp->network, detail);
	if (!error)
		return;
	give_tag(dhcp, tag);
	log_warn(tag, "dnsmasq could not be stopped: %s", *detail ? detail : strerror(-error));
}

void dhcp_reload(struct dhcp *dhcp)
{
	/* Before it says that it serves, SIGHUP would still kill it. */
	dhcp->reload_wanted = dhcp->state == DHCP_STARTING || dhcp->is_reading;
	if (dhcp->state == DHCP_SERVING && !dhcp->is_reading)
		send_reload(dhcp);
}

/* "DHCPACK(LINK) ADDRESS MAC NAME": any word of ours may be in a VM's name. */
static bool is_of_a_vm(const char *line)
{
	size_t letters = strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	return letters > strlen("DHCP") && strncmp(line, "DHCP", strlen("DHCP")) == 0 &&
	       line[letters] == '(';
}

bool dhcp_line_is_warning(const char *line)
{
	static const char *const words[] = {
		"warning",
		"error",
		"fail",
		"cannot",
		"can't",
		"unknown interface",
		"not using configured",
		"no address range",
		"no leases left",
		"ignoring",
		"abandoning",
		"possible DNS-rebind",
		"bad ",
		"duplicate",
		"Maximum number",
	};

	/* What mode host is, and a shared network on a host that is offline. */
	if (is_of_a_vm(line) || strstr(line, "no upstream servers configured"))
		return false;
	for (size_t i = 0; i < array_length(words); i++)
		if (strcasestr(line, words[i]))
			return true;
	return false;
}

/* "dnsmasq[123]: text" and "dnsmasq-dhcp: text" without what the tag says already. */
static const char *strip_program(const char *line)
{
	const char *colon = strstr(line, ": ");

	return strncmp(line, "dnsmasq", 7) == 0 && colon ? colon + 2 : line;
}

static void log_line(struct dhcp *dhcp, const char *text)
{
	bool warning = dhcp_line_is_warning(text);
	uint32_t suppressed;
	char tag[48];

	give_tag(dhcp, tag);
	if (!warning) {
		log_debug(tag, "dnsmasq: %s", text);
		return;
	}
	snprintf(dhcp->last_warning, sizeof(dhcp->last_warning), "%s", text);
	if (!rate_limit_allow(&dhcp->lines, rate_limit_now_ms(), &suppressed))
		return;
	if (suppressed > 0)
		log_warn(tag, "dnsmasq: %u warnings were left out", suppressed);
	log_warn(tag, "dnsmasq: %s", text);
	dhcp->owner->complained(dhcp->context, text);
}

/* What its log says last of one reading: "read DIRECTORY/NETWORK.hosts", or "read
 * DIRECTORY/NETWORK.names - 5 names". */
static bool tells_of_reading(const struct dhcp *dhcp, const char *text)
{
	char file[NETWORK_NAME_SIZE + sizeof("/.names - ")];
	const char *found;

	snprintf(file, sizeof(file), "/%s%s", dhcp->network,
		reads_hosts(dhcp) ? ".hosts" : ".names - ");
	found = strncmp(text, "read /", strlen("read /")) == 0 ? strstr(text, file) : NULL;
	return found && (!reads_hosts(dhcp) || !found[strlen(file)]);
}

/* "DHCPACK(LINK) ADDRESS MAC NAME"; without a name there is nothing behind the MAC. */
static void take_lease(struct dhcp *dhcp, const char *text)
{
	char verb[16], address_text[16], mac_text[MAC_TEXT_SIZE], name[HOSTNAME_SIZE] = "";
	struct in_addr address;
	struct mac mac;

	if (sscanf(text, "%15[A-Z](%*15[^)]) %15s %17s %63s", verb, address_text, mac_text, name) <
			3 ||
		text_to_mac(mac_text, &mac) < 0 || text_to_ipv4(address_text, &address) < 0)
		return;
	if (strcmp(verb, "DHCPRELEASE") == 0)
		dhcp->owner->released(dhcp->context, mac, address);
	if (strcmp(verb, "DHCPACK") != 0)
		return;
	/* What is behind the MAC may be another thing, or a name cut. */
	if (!hostname_is_valid(name))
		*name = '\0';
	if (*name)
		dhcp->owner->named(dhcp->context, mac, name);
	dhcp->owner->leased(dhcp->context, mac, address, name);
}

void dhcp_take_line(struct dhcp *dhcp, const char *line)
{
	const char *text = strip_program(line);

	log_line(dhcp, text);
	/* At the start only: further right a VM's name could say it. */
	if (strncmp(text, "started, version", strlen("started, version")) == 0)
		handle(dhcp, EVENT_READY);
	else if (tells_of_reading(dhcp, text))
		handle(dhcp, EVENT_READ);
	else
		take_lease(dhcp, text);
}

void dhcp_take_end(struct dhcp *dhcp)
{
	handle(dhcp, EVENT_END);
}
