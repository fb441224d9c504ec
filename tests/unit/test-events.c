/* What happens is told, to those who may know of it, in the words of the protocol. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/drops.h"
#include "broker/events.h"
#include "broker/platform-fake.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER     1000
#define STRANGER 1001
#define LEASE_MS 600000

struct fixture {
	char path[48];
	struct config config;
	struct platform *platform;
	struct records *records;
	struct registry registry;
	struct event_listener listener;
	char told[1024]; /* "kind what[ text]\n" of each event since it was emptied */
	json_t *last;
	bool is_for_user, is_for_stranger, is_for_root; /* the last one */
};

static const char configured[] =
	"{\"lab\": {\"mode\": \"host\", \"subnet\": \"10.0.0.0/24\", \"ipv6\": false, "
	"\"lease_time\": 600, \"allow\": {\"users\": [1000]}}}";

static void take(void *context, const struct event *event)
{
	struct fixture *fixture = context;
	size_t used = strlen(fixture->told);
	cleanup_json json_t *message = event_encode(event, false);
	const json_t *object = json_object_get(message, "event");

	assert_non_null(object);
	snprintf(fixture->told + used, sizeof(fixture->told) - used, "%s %s\n",
		json_string_value(json_object_get(object, "kind")),
		json_string_value(json_object_get(object, "what")));
	json_decref(fixture->last);
	fixture->last = json_deep_copy(object);
	fixture->is_for_user =
		event_is_for(&fixture->registry, event, &(struct credentials){.uid = USER});
	fixture->is_for_stranger =
		event_is_for(&fixture->registry, event, &(struct credentials){.uid = STRANGER});
	fixture->is_for_root =
		event_is_for(&fixture->registry, event, &(struct credentials){.uid = 0});
}

static void assert_told(struct fixture *fixture, const char *expected)
{
	assert_string_equal(fixture->told, expected);
	*fixture->told = '\0';
}

static const char *last_text(const struct fixture *fixture, const char *member)
{
	return json_string_value(json_object_get(fixture->last, member));
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	snprintf(fixture->path, sizeof(fixture->path), "/tmp/test-events-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	assert_int_equal(chdir(fixture->path), 0);
	assert_int_equal(mkdir("state", 0700), 0);
	assert_int_equal(mkdir("run", 0700), 0);
	config_init(&fixture->config);
	config_parse(&fixture->config, "networks.json", configured, strlen(configured));
	fixture->platform = platform_fake_new();
	assert_non_null(fixture->platform);
	fixture->platform->dhcp_serves_at_once = true;
	assert_int_equal(records_open("state", "run", &fixture->records), 0);
	fixture->registry = (struct registry){
		.platform = fixture->platform,
		.records = fixture->records,
		.config = &fixture->config,
		.instance = 7,
		.idle_timeout_ms = 1000,
	};
	assert_int_equal(registry_init(&fixture->registry), 0);
	fixture->listener = (struct event_listener){.take = take, .context = fixture};
	events_listen(&fixture->registry, &fixture->listener);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[80];

	events_unlisten(&fixture->registry, &fixture->listener);
	registry_done(&fixture->registry);
	records_close(fixture->records);
	platform_fake_free(fixture->platform);
	config_done(&fixture->config);
	json_decref(fixture->last);
	snprintf(command, sizeof(command), "rm -r %s", fixture->path);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

/* USER's VM on network lab, which it had made. */
static struct interface *attach(struct fixture *fixture)
{
	const struct credentials user = {.uid = USER};
	struct create_interface_call call = {.hostname = "web"};
	struct interface_fds fds;
	struct interface *interface;
	struct network_hold *hold;
	struct failure failure;

	assert_int_equal(
		network_acquire(&fixture->registry, "lab", &user, NULL, NULL, &hold, &failure), 1);
	assert_int_equal(
		interface_create(hold->network, &call, &(struct interface_owner){.uid = USER},
			&interface, &fds, &failure),
		0);
	for (size_t i = 0; i < fds.count; i++)
		fd_close(fds.fds[i]);
	network_release(hold);
	return interface;
}

static void say_lease(struct fixture *fixture, const struct interface *interface, const char *verb)
{
	char line[160], mac[MAC_TEXT_SIZE], address[INET_ADDRSTRLEN];

	mac_to_text(interface->record.mac, mac);
	ipv4_to_text(interface->record.address, address);
	snprintf(line, sizeof(line), "dnsmasq-dhcp: %s(vmbr01234567) %s %s%s", verb, address, mac,
		strcmp(verb, "DHCPACK") == 0 ? " web" : "");
	platform_fake_say_line(fixture->platform, "lab", line);
}

static void a_networks_and_a_vms_life_is_told(void **state)
{
	struct fixture *fixture = *state;
	uint32_t number = attach(fixture)->number;

	/* dnsmasq serves here before the hold is there. */
	assert_told(fixture,
		"network starting\nnetwork lingering\nnetwork running\ninterface created\n");
	assert_true(fixture->is_for_user && fixture->is_for_root && !fixture->is_for_stranger);
	assert_string_equal(last_text(fixture, "network"), "lab");
	assert_int_equal(json_integer_value(json_object_get(fixture->last, "uid")), USER);
	platform_fake_close_interface(fixture->platform, number);
	assert_told(fixture, "interface gone\nnetwork lingering\n");
	assert_string_equal(last_text(fixture, "text"), "10.0.0.0/24 on bridge bridge0");
	assert_true(fixture->is_for_user && fixture->is_for_root && !fixture->is_for_stranger);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 1000), 1);
	assert_told(fixture, "network absent\n");
	assert_null(last_text(fixture, "text"));
}

static void a_lease_is_told_and_its_end(void **state)
{
	struct fixture *fixture = *state;
	struct interface *interface = attach(fixture);

	*fixture->told = '\0';
	say_lease(fixture, interface, "DHCPACK");
	assert_told(fixture, "lease given\n");
	assert_true(fixture->is_for_user && fixture->is_for_root && !fixture->is_for_stranger);
	say_lease(fixture, interface, "DHCPACK");
	assert_told(fixture, "lease renewed\n");
	assert_int_equal(platform_fake_fire_timers(fixture->platform, LEASE_MS), 1);
	assert_told(fixture, "lease expired\n");
	assert_int_equal(platform_fake_fire_timers(fixture->platform, LEASE_MS), 0);
	say_lease(fixture, interface, "DHCPACK");
	assert_told(fixture, "lease given\n");
	say_lease(fixture, interface, "DHCPRELEASE");
	assert_told(fixture, "lease released\n");
	assert_int_equal(platform_fake_fire_timers(fixture->platform, LEASE_MS), 0);
	say_lease(fixture, interface, "DHCPRELEASE");
	say_lease(fixture, interface, "DHCPNAK");
	platform_fake_say_line(fixture->platform, "lab",
		"dnsmasq-dhcp: DHCPACK(vmbr01234567) 10.0.0.9 52:54:00:00:00:99 other");
	assert_told(fixture, "");
	/* Its timer goes with it. */
	say_lease(fixture, interface, "DHCPACK");
	platform_fake_close_interface(fixture->platform, interface->number);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, LEASE_MS), 0);
}

static void what_is_wrong_is_told(void **state)
{
	struct fixture *fixture = *state;
	uint32_t number = attach(fixture)->number;

	*fixture->told = '\0';
	fixture->platform->events->interface_tampered(
		fixture->platform->context, number, "its address was changed");
	assert_told(fixture, "warning tampering\n");
	assert_true(fixture->is_for_user && !fixture->is_for_stranger);
	platform_fake_close_interface(fixture->platform, number);
	assert_told(fixture, "interface gone\nnetwork lingering\n");
	platform_fake_say_line(
		fixture->platform, "lab", "dnsmasq-dhcp: no address range available");
	assert_told(fixture, "warning dnsmasq\n");
	assert_string_equal(last_text(fixture, "text"), "no address range available");
	/* Such as: not giving name secret to the DHCP lease of 10.0.0.5 because ... */
	assert_true(!fixture->is_for_user && fixture->is_for_root && !fixture->is_for_stranger);
}

static void drops_are_told_while_somebody_listens(void **state)
{
	struct fixture *fixture = *state;
	uint32_t number = attach(fixture)->number;
	struct fake_interface *fake = platform_fake_interface(fixture->platform, number);

	*fixture->told = '\0';
	fake->host_to_vm.drops = 7;
	drops_listen(&fixture->registry);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, DROPS_PERIOD_MS), 1);
	assert_told(fixture, "");
	fake->host_to_vm.drops += 2;
	fake->vm_to_host.drops += 1;
	assert_int_equal(platform_fake_fire_timers(fixture->platform, DROPS_PERIOD_MS), 1);
	assert_told(fixture, "warning drops\n");
	assert_string_equal(last_text(fixture, "text"), "3 frames were dropped within 5 s");
	assert_true(fixture->is_for_user && fixture->is_for_root && !fixture->is_for_stranger);
	drops_listen(&fixture->registry);
	drops_unlisten(&fixture->registry);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, DROPS_PERIOD_MS), 1);
	drops_unlisten(&fixture->registry);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, DROPS_PERIOD_MS), 0);
	/* What was dropped while nobody listened is no news. */
	fake->host_to_vm.drops += 100;
	drops_listen(&fixture->registry);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, DROPS_PERIOD_MS), 1);
	assert_told(fixture, "");
	drops_unlisten(&fixture->registry);
}

static void a_refusal_is_its_callers(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;

	failure_set(&failure, BROKER_ERROR_QUOTA_EXCEEDED, "too many \xff\x1b");
	events_tell_refusal(&fixture->registry, STRANGER, &failure);
	assert_told(fixture, "refusal QuotaExceeded\n");
	assert_string_equal(last_text(fixture, "text"), "too many ?\x1b");
	assert_true(!fixture->is_for_user && fixture->is_for_root && fixture->is_for_stranger);
}

static void the_configuration_and_its_mistakes_are_told(void **state)
{
	struct fixture *fixture = *state;
	static const char text[] = "{\"bad\": {\"mode\": \"shard\"}}";

	events_tell_configuration(&fixture->registry);
	assert_told(fixture, "configuration read\n");
	assert_true(fixture->is_for_user && fixture->is_for_root && fixture->is_for_stranger);
	config_parse(&fixture->config, "x.json", "{", 1);
	events_tell_configuration(&fixture->registry);
	assert_told(fixture, "configuration read\nconfiguration mistake\n");
	assert_true(!fixture->is_for_user && fixture->is_for_root && !fixture->is_for_stranger);
	config_done(&fixture->config);
	config_init(&fixture->config);
	config_parse(&fixture->config, "x.json", text, strlen(text));
	events_tell_configuration(&fixture->registry);
	assert_told(fixture, "configuration read\nconfiguration mistake\n");
	assert_string_equal(last_text(fixture, "network"), "bad");
}

static void what_monitor_is_asked_for(void **state)
{
	char reason[BROKER_REASON_SIZE];
	struct monitor_call call;
	cleanup_json json_t *both = json_pack("{s:s, s:b}", "network", "lab", "state", 0);
	cleanup_json json_t *wrong = json_pack("{s:s}", "state", "no");
	cleanup_json json_t *unknown = json_pack("{s:b}", "stat", 1);

	assert_int_equal(monitor_decode(NULL, &call, reason), 0);
	assert_true(!*call.network && !call.without_state);
	assert_int_equal(monitor_decode(both, &call, reason), 0);
	assert_string_equal(call.network, "lab");
	assert_true(call.without_state);
	assert_int_equal(monitor_decode(wrong, &call, reason), -22);
	assert_non_null(strstr(reason, "\"state\" must be true or false"));
	assert_int_equal(monitor_decode(unknown, &call, reason), -22);
}

#define EVENTS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EVENTS_TEST(a_networks_and_a_vms_life_is_told),
		EVENTS_TEST(a_lease_is_told_and_its_end),
		EVENTS_TEST(what_is_wrong_is_told),
		EVENTS_TEST(drops_are_told_while_somebody_listens),
		EVENTS_TEST(a_refusal_is_its_callers),
		EVENTS_TEST(the_configuration_and_its_mistakes_are_told),
		cmocka_unit_test(what_monitor_is_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
