/* Another configuration under a registry: what holds at once, what waits, and that the old one can
 * be freed. Pinned networks. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/interface.h"
#include "broker/network-config.h"
#include "broker/platform-fake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define IDLE_MS  120000
#define RETRY_MS 10000
#define USER     1000

static const struct interface_owner owner = {.uid = USER};

struct fixture {
	char path[40];
	struct platform *platform;
	struct records *records;
	struct registry registry;
};

static struct config *make_config(const char *text)
{
	struct config *config = malloc(sizeof(*config));

	assert_non_null(config);
	config_init(config);
	config_parse(config, "networks.json", text, strlen(text));
	config_check_overlaps(config);
	return config;
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	snprintf(fixture->path, sizeof(fixture->path), "/tmp/test-network-config-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	assert_int_equal(chdir(fixture->path), 0);
	assert_int_equal(mkdir("state", 0700), 0);
	assert_int_equal(mkdir("run", 0700), 0);
	assert_int_equal(records_open("state", "run", &fixture->records), 0);
	fixture->platform = platform_fake_new();
	assert_non_null(fixture->platform);
	fixture->platform->dhcp_serves_at_once = true;
	fixture->registry = (struct registry){
		.platform = fixture->platform,
		.records = fixture->records,
		.config = make_config("{\"lab\": {\"mode\": \"host\", \"subnet\": "
				      "\"10.77.0.0/24\"}}"),
		.instance = 7,
		.idle_timeout_ms = IDLE_MS,
	};
	assert_int_equal(registry_init(&fixture->registry), 0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[80];

	registry_done(&fixture->registry);
	config_free(fixture->registry.config);
	records_close(fixture->records);
	platform_fake_free(fixture->platform);
	snprintf(command, sizeof(command), "rm -r %s", fixture->path);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

/* The old one is freed at once: what still pointed into it is an error of the sanitizer's. */
static void reconfigure(struct fixture *fixture, const char *text)
{
	config_free(registry_set_config(&fixture->registry, make_config(text)));
	platform_fake_fire_timers(fixture->platform, REGISTRY_FORGET_MS);
}

static void ignore_answer(void *context, const struct failure *failure)
{
}

static struct network_hold *acquire(struct fixture *fixture, const char *name)
{
	struct network_hold *hold;
	struct failure failure;

	assert_int_equal(
		network_acquire(&fixture->registry, name, &(struct credentials){.uid = USER},
			ignore_answer, NULL, &hold, &failure),
		1);
	return hold;
}

static struct network *find(struct fixture *fixture, const char *name)
{
	struct network *network = registry_find(&fixture->registry, name);

	assert_non_null(network);
	return network;
}

static struct interface *attach(
	struct fixture *fixture, const char *name, const struct create_interface_call *call)
{
	struct interface_fds fds;
	struct interface *interface;
	struct failure failure;

	assert_int_equal(
		interface_create(find(fixture, name), call, &owner, &interface, &fds, &failure), 0);
	for (size_t i = 0; i < fds.count; i++)
		fd_close(fds.fds[i]);
	return interface;
}

static void networks_come_and_go(void **state)
{
	struct fixture *fixture = *state;

	reconfigure(fixture, "{\"new\": {\"mode\": \"shared\"}}");
	assert_null(registry_find(&fixture->registry, "lab"));
	assert_null(registry_find_entry(&fixture->registry, "lab"));
	assert_int_equal(find(fixture, "new")->state, NETWORK_ABSENT);
	network_release(acquire(fixture, "new"));
	assert_non_null(platform_fake_network(fixture->platform, "new"));
}

static void a_running_network_goes_on_as_it_is(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "lab");
	struct network *lab = find(fixture, "lab");
	char text[SUBNET_TEXT_SIZE];

	reconfigure(fixture, "{\"lab\": {\"mode\": \"shared\", \"subnet\": \"10.78.0.0/24\"}}");
	assert_ptr_equal(find(fixture, "lab"), lab);
	assert_int_equal(lab->state, NETWORK_RUNNING);
	assert_int_equal(lab->settings.mode, NETWORK_MODE_HOST);
	network_release(hold);
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	assert_int_equal(lab->state, NETWORK_ABSENT);
	hold = acquire(fixture, "lab");
	ipv4_subnet_to_text(lab->link.subnet, text);
	assert_string_equal(text, "10.78.0.0/24");
	assert_int_equal(lab->link.mode, NETWORK_MODE_SHARED);
	network_release(hold);
}

static void one_that_is_not_configured_ends_with_its_users(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "lab");

	reconfigure(fixture, "{}");
	assert_int_equal(find(fixture, "lab")->state, NETWORK_RUNNING);
	network_release(hold);
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	platform_fake_fire_timers(fixture->platform, REGISTRY_FORGET_MS);
	assert_null(registry_find_entry(&fixture->registry, "lab"));
}

static void one_that_comes_back_is_the_same(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "lab");

	reconfigure(fixture, "{}");
	reconfigure(fixture, "{\"lab\": {\"mode\": \"host\", \"subnet\": \"10.77.0.0/24\"}}");
	network_release(hold);
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	platform_fake_fire_timers(fixture->platform, REGISTRY_FORGET_MS);
	assert_int_equal(find(fixture, "lab")->state, NETWORK_ABSENT);
}

#define RESERVED                                                                                   \
	"{\"lab\": {\"mode\": \"host\", \"subnet\": \"10.77.0.0/24\", \"reservations\": "          \
	"[{\"mac\": \"52:54:00:00:00:01\", \"address\": \"10.77.0.2\", \"name\": \"web\"}]}}"

static void a_reserved_address_waits_for_the_vm_that_has_it(void **state)
{
	static const struct create_interface_call web = {
		.has_mac = true, .mac = {{0x52, 0x54, 0, 0, 0, 1}}};
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "lab");
	struct interface *early =
		attach(fixture, "lab", &(struct create_interface_call){.queues = 1});
	uint32_t number = early->number;
	struct interface_fds fds;
	struct interface *interface;
	struct failure failure;

	assert_int_equal(ntohl(early->record.address.s_addr), 0x0a4d0002);
	reconfigure(fixture, RESERVED);
	assert_int_equal(
		interface_create(find(fixture, "lab"), &web, &owner, &interface, &fds, &failure),
		-ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_CONFLICT);
	platform_fake_close_interface(fixture->platform, number);
	interface = attach(fixture, "lab", &web);
	assert_int_equal(ntohl(interface->record.address.s_addr), 0x0a4d0002);
	assert_string_equal(interface->record.hostname, "web");
	platform_fake_close_interface(fixture->platform, interface->number);
	network_release(hold);
}

static void a_pinned_network_is_there_without_users(void **state)
{
	struct fixture *fixture = *state;

	reconfigure(fixture, "{\"lab\": {\"mode\": \"host\", \"pinned\": true}}");
	assert_int_equal(find(fixture, "lab")->state, NETWORK_RUNNING);
	network_release(acquire(fixture, "lab"));
	assert_int_equal(find(fixture, "lab")->state, NETWORK_RUNNING);
	reconfigure(fixture, "{\"lab\": {\"mode\": \"host\"}}");
	assert_int_equal(find(fixture, "lab")->state, NETWORK_LINGERING);
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	assert_int_equal(find(fixture, "lab")->state, NETWORK_ABSENT);
}

static void a_pinned_network_is_tried_again(void **state)
{
	struct fixture *fixture = *state;

	fixture->platform->create_error = -EIO;
	reconfigure(fixture, "{\"lab\": {\"mode\": \"host\", \"pinned\": true}}");
	assert_int_equal(find(fixture, "lab")->state, NETWORK_ABSENT);
	fixture->platform->create_error = 0;
	assert_int_equal(platform_fake_fire_timers(fixture->platform, RETRY_MS), 1);
	assert_int_equal(find(fixture, "lab")->state, NETWORK_RUNNING);
	platform_fake_remove_bridge(fixture->platform, "lab");
	assert_int_equal(find(fixture, "lab")->state, NETWORK_RUNNING);
}

static void one_with_a_mistake_is_not_made(void **state)
{
	struct fixture *fixture = *state;

	reconfigure(fixture, "{\"lab\": {\"mode\": \"host\", \"pinned\": true, \"mtu\": 1}}");
	assert_int_equal(find(fixture, "lab")->state, NETWORK_ABSENT);
}

static void differences_have_the_keys_of_the_configuration(void **state)
{
	char keys[SETTINGS_DIFFERENCES_SIZE];
	struct network_settings a, b;

	network_settings_init(&a, NETWORK_MODE_HOST);
	b = a;
	b.gateway_offset = 1;
	assert_false(network_settings_compare(&a, &b, keys));
	assert_string_equal(keys, "");
	b.router_advertisement = false;
	b.lease_s = 300;
	b.has_subnet = true;
	b.subnet = (struct ipv4_subnet){{htonl(0x0a000000)}, 24};
	assert_true(network_settings_compare(&a, &b, keys));
	assert_string_equal(keys, "ra, lease_time, subnet");
	assert_true(network_settings_compare(&b, &a, keys));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(networks_come_and_go, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_running_network_goes_on_as_it_is, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			one_that_is_not_configured_ends_with_its_users, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_that_comes_back_is_the_same, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_reserved_address_waits_for_the_vm_that_has_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_pinned_network_is_there_without_users, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_pinned_network_is_tried_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_with_a_mistake_is_not_made, set_up, tear_down),
		cmocka_unit_test(differences_have_the_keys_of_the_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
