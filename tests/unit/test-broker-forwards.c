/* Forwards over a platform without a system: whose they are, when they have a rule, how they end.
 */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/forward.h"
#include "broker/interface.h"
#include "broker/network-config.h"
#include "broker/platform-fake.h"
#include "broker/policy.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER     1000
#define GRACE_MS 5000
#define RETRY_MS 3000

struct fixture {
	char path[48];
	struct config config;
	struct platform *platform;
	struct records *records;
	struct registry registry;
};

static const char configured[] =
	"{\"shared\": {\"mode\": \"shared\", \"subnet\": \"10.0.0.0/24\", \"ipv6\": false},"
	" \"lab\": {\"mode\": \"host\", \"subnet\": \"10.0.1.0/24\", \"ipv6\": false, "
	"\"forwards\": ["
	"  {\"port\": 7000, \"to\": \"web:80\"}]},"
	" \"closed\": {\"mode\": \"host\", \"subnet\": \"10.0.2.0/24\", \"ipv6\": false, "
	"\"allow\": {\"users\": [1]}}}";

static void open_all(struct fixture *fixture)
{
	struct forward_records *records;

	assert_int_equal(records_open("state", "run", &fixture->records), 0);
	assert_int_equal(forward_records_open("state", "run", &records), 0);
	fixture->registry = (struct registry){
		.platform = fixture->platform,
		.records = fixture->records,
		.config = &fixture->config,
		.instance = 7,
		.idle_timeout_ms = 1000,
	};
	assert_int_equal(registry_init(&fixture->registry), 0);
	assert_int_equal(registry_adopt(&fixture->registry), 0);
	assert_int_equal(forwards_new(&fixture->registry, records, &fixture->registry.forwards), 0);
	forwards_configure(fixture->registry.forwards);
}

/* As a broker ends: what it had stays in the kernel. */
static void close_all(struct fixture *fixture)
{
	forwards_freeze(fixture->registry.forwards);
	forwards_free(take_ptr(fixture->registry.forwards));
	registry_done(&fixture->registry);
	records_close(fixture->records);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	snprintf(fixture->path, sizeof(fixture->path), "/tmp/test-broker-forwards-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	assert_int_equal(chdir(fixture->path), 0);
	assert_int_equal(mkdir("state", 0700), 0);
	assert_int_equal(mkdir("run", 0700), 0);
	config_init(&fixture->config);
	config_parse(&fixture->config, "networks.json", configured, strlen(configured));
	fixture->platform = platform_fake_new();
	assert_non_null(fixture->platform);
	fixture->platform->dhcp_serves_at_once = true;
	open_all(fixture);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[80];

	close_all(fixture);
	config_done(&fixture->config);
	platform_fake_free(fixture->platform);
	snprintf(command, sizeof(command), "rm -r %s", fixture->path);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

static struct network_hold *hold_network(struct fixture *fixture, const char *name)
{
	struct network_hold *hold;
	struct failure failure;

	assert_int_equal(network_acquire(&fixture->registry, name,
				 &(struct credentials){.uid = USER}, NULL, NULL, &hold, &failure),
		1);
	return hold;
}

static uint32_t start_vm(
	struct fixture *fixture, const char *network, const char *hostname, uid_t uid)
{
	struct network_hold *hold = hold_network(fixture, network);
	struct create_interface_call call = {0};
	struct interface *interface;
	struct interface_fds fds;
	struct failure failure;

	text_copy(call.hostname, sizeof(call.hostname), hostname);
	assert_int_equal(interface_create(hold->network, &call,
				 &(struct interface_owner){.uid = uid}, &interface, &fds, &failure),
		0);
	for (size_t i = 0; i < fds.count; i++)
		fd_close(fds.fds[i]);
	network_release(hold);
	return interface->number;
}

static int try_forward(struct fixture *fixture, const char *network, const char *listen,
	const char *target, uid_t uid, const void *holder, struct failure *failure)
{
	const struct credentials user = {.uid = uid, .pid = 4711};
	struct forward_asker asker = {.user = &user, .holder = holder};
	struct forward_call call = {.pin = !holder};
	struct forward *forward;

	text_copy(call.network, sizeof(call.network), network);
	forward_spec_init(&call.spec);
	assert_int_equal(forward_spec_set_listen(&call.spec, listen), 0);
	assert_int_equal(forward_spec_set_target(&call.spec, target), 0);
	assert_int_equal(forward_spec_settle(&call.spec), 0);
	return forwards_add(fixture->registry.forwards, &call, &asker, &forward, failure);
}

/* holder NULL: pinned. */
static void make_forward(struct fixture *fixture, const char *network, const char *listen,
	const char *target, uid_t uid, const void *holder)
{
	struct failure failure = {.reason = ""};

	if (try_forward(fixture, network, listen, target, uid, holder, &failure) != 0)
		fail_msg("%s", failure.reason);
}

static void expect_rules(const struct fixture *fixture, size_t count)
{
	assert_int_equal(fixture->platform->forwards_count, count);
}

static void expect_target(const struct fixture *fixture, const char *text)
{
	char target[ENDPOINT_TEXT_SIZE];

	expect_rules(fixture, 1);
	endpoint_to_text(&fixture->platform->forwards[0].target, target);
	assert_string_equal(target, text);
}

static void a_rule_is_there_while_its_vm_is(void **state)
{
	struct fixture *fixture = *state;
	unsigned int applied = fixture->platform->forwards_applied;
	uint32_t number;

	make_forward(fixture, "shared", "8080", "web:80", USER, fixture);
	start_vm(fixture, "shared", "other", USER);
	assert_int_equal(fixture->platform->forwards_applied, applied);
	number = start_vm(fixture, "shared", "Web", USER);
	expect_target(fixture, "10.0.0.3:80");
	assert_false(fixture->platform->forwards_ended_flows);
	platform_fake_close_interface(fixture->platform, number);
	expect_rules(fixture, 0);
	assert_int_equal(fixture->platform->forwards_applied, applied + 2);
	start_vm(fixture, "shared", "web", USER + 1);
	expect_rules(fixture, 0);
}

static void root_leads_to_everybody(void **state)
{
	struct fixture *fixture = *state;

	start_vm(fixture, "shared", "web", USER);
	make_forward(fixture, "shared", "8080", "10.0.0.77:80", 0, fixture);
	expect_target(fixture, "10.0.0.77:80");
	make_forward(fixture, "shared", "8081", "web:80", 0, fixture);
	expect_rules(fixture, 2);
}

static void configured_ones_are_there(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;

	start_vm(fixture, "lab", "web", USER);
	expect_target(fixture, "10.0.1.2:80");
	assert_int_equal(forwards_remove(fixture->registry.forwards, 1, 0, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_NOT_ALLOWED);
	assert_int_equal(try_forward(fixture, "shared", "7000", "web:80", USER, fixture, &failure),
		-ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_CONFLICT);
}

static void the_same_again_changes_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;
	int other_holder;

	for (int i = 0; i < 2; i++) {
		make_forward(fixture, "shared", "8080", "web:80", USER, fixture);
		make_forward(fixture, "shared", "8081", "web:80", USER, NULL);
		assert_int_equal(fixture->registry.forwards->count, 3);
	}
	assert_int_equal(
		try_forward(fixture, "shared", "8080", "web:80", USER, &other_holder, &failure),
		-ECANCELED);
	assert_int_equal(try_forward(fixture, "shared", "8080", "db:80", USER, fixture, &failure),
		-ECANCELED);
	assert_int_equal(try_forward(fixture, "shared", "8081", "web:80", USER + 1, NULL, &failure),
		-ECANCELED);
	forwards_drop_holder(fixture->registry.forwards, fixture);
	assert_int_equal(fixture->registry.forwards->count, 2);
}

static void a_restart_leaves_them_in_force(void **state)
{
	struct fixture *fixture = *state;
	uint32_t number = start_vm(fixture, "shared", "web", USER);

	make_forward(fixture, "shared", "8080", "web:80", USER, fixture);
	make_forward(fixture, "shared", "8081", "web:80", USER, NULL);
	make_forward(fixture, "shared", "8082", "web:80", USER, &number);
	expect_rules(fixture, 3);
	close_all(fixture);
	expect_rules(fixture, 3);
	open_all(fixture);
	expect_rules(fixture, 3);
	/* One of the two connections comes back. */
	make_forward(fixture, "shared", "8080", "web:80", USER, fixture);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, GRACE_MS), 1);
	expect_rules(fixture, 2);
	assert_int_equal(access("run/forwards/4.json", F_OK), -1);
	forwards_drop_holder(fixture->registry.forwards, fixture);
	expect_rules(fixture, 1);
	assert_int_equal(fixture->platform->forwards[0].listen.port, 8081);
}

static void records_that_are_none_are_set_aside(void **state)
{
	static const char *const bad[] = {
		"{",
		"{\"network\":\"shared\",\"protocol\":\"tcp\",\"listen\":\"0.0.0.0:1\"}",
		"{\"network\":\"shared\",\"protocol\":\"tcp\",\"listen\":\"0.0.0.0:1\","
		"\"target\":\"web:80\",\"uid\":-1}",
		"{\"network\":\"../x\",\"protocol\":\"tcp\",\"listen\":\"0.0.0.0:1\","
		"\"target\":\"web:80\",\"uid\":1}",
	};
	struct fixture *fixture = *state;

	close_all(fixture);
	for (size_t i = 0; i < array_length(bad); i++) {
		char name[40];
		FILE *file;

		snprintf(name, sizeof(name), "state/forwards/%zu.json", 5 + i);
		file = fopen(name, "we");
		fputs(bad[i], file);
		fclose(file);
	}
	open_all(fixture);
	assert_int_equal(fixture->registry.forwards->count, 1);
	assert_int_equal(access("state/forwards/5.json.corrupt", F_OK), 0);
	assert_int_equal(access("state/forwards/8.json.corrupt", F_OK), 0);
}

static void what_the_kernel_refuses_is_not_there(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;

	start_vm(fixture, "shared", "web", USER);
	fixture->platform->forwards_error = -EIO;
	assert_int_equal(
		try_forward(fixture, "shared", "8080", "web:80", USER, NULL, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_CREATE_FAILURE);
	assert_int_equal(fixture->registry.forwards->count, 1);
	assert_int_equal(access("state/forwards/2.json", F_OK), -1);
	fixture->platform->forwards_error = 0;
	make_forward(fixture, "shared", "8081", "web:80", USER, fixture);
	expect_target(fixture, "10.0.0.2:80");
}

/* As the forward that waited, and whose port a program took meanwhile. */
static void what_cannot_be_listened_on_is_tried_again(void **state)
{
	struct fixture *fixture = *state;
	const struct forward *waiting;
	unsigned int applied;

	make_forward(fixture, "shared", "9090", "later:80", USER, fixture);
	waiting = fixture->registry.forwards->list->next;
	fixture->platform->refused_port = 9090;
	start_vm(fixture, "shared", "later", USER);
	assert_true(waiting->leads && !waiting->is_active);
	for (int i = 0; i < 2; i++) {
		applied = fixture->platform->forwards_applied;
		assert_int_equal(platform_fake_fire_timers(fixture->platform, RETRY_MS), 1);
		assert_int_equal(fixture->platform->forwards_applied, applied + 1);
		assert_false(fixture->platform->forwards_ended_flows);
		assert_false(waiting->is_active);
	}
	fixture->platform->refused_port = 0;
	assert_int_equal(platform_fake_fire_timers(fixture->platform, RETRY_MS), 1);
	assert_true(waiting->is_active);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, RETRY_MS), 0);
}

/* With the forward goes its timer. */
static void what_is_gone_is_not_tried_again(void **state)
{
	struct fixture *fixture = *state;

	make_forward(fixture, "shared", "9090", "later:80", USER, fixture);
	fixture->platform->refused_port = 9090;
	start_vm(fixture, "shared", "later", USER);
	forwards_drop_holder(fixture->registry.forwards, fixture);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, RETRY_MS), 0);
}

static void lost_rules_are_made_again(void **state)
{
	struct fixture *fixture = *state;
	unsigned int applied;

	start_vm(fixture, "shared", "web", USER);
	applied = fixture->platform->forwards_applied;
	fixture->platform->events->forwards_stale(fixture->platform->context, "a test");
	assert_int_equal(fixture->platform->forwards_applied, applied);
	make_forward(fixture, "shared", "8080", "web:80", USER, fixture);
	fixture->platform->events->forwards_stale(fixture->platform->context, "a test");
	assert_int_equal(fixture->platform->forwards_applied, applied + 2);
	expect_rules(fixture, 1);
}

static void a_program_of_the_host_keeps_its_port(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;

	fixture->platform->listener_port = 8080;
	assert_int_equal(
		try_forward(fixture, "shared", "8080", "web:80", 0, fixture, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_CONFLICT);
	make_forward(fixture, "shared", "8081", "web:80", 0, fixture);
}

static void whose_network_it_is_not_is_told_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;

	assert_int_equal(
		try_forward(fixture, "closed", "8080", "web:80", USER, NULL, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_NOT_ALLOWED);
	assert_int_equal(
		try_forward(fixture, "blue", "8080", "web:80", USER, NULL, &failure), -ECANCELED);
	assert_string_equal(
		failure.reason, "network \"blue\" does not exist; there are: host, lab, shared");
	make_forward(fixture, "closed", "8080", "web:80", 1, NULL);
	make_forward(fixture, "closed", "8081", "web:80", 0, NULL);
}

static void a_network_that_was_forgotten_frees_no_quota(void **state)
{
	struct fixture *fixture = *state;
	struct failure failure;
	char listen[8];

	for (uint32_t i = 0; i < POLICY_FORWARDS_MAX; i++) {
		const char *name = i % 2 ? "host-10.1.0.1-24-254" : "host-10.2.0.1-24-254";
		struct network_hold *hold = hold_network(fixture, name);

		snprintf(listen, sizeof(listen), "%u", 8000 + i);
		make_forward(fixture, name, listen, "web:80", USER, NULL);
		network_release(hold);
		platform_fake_fire_timers(fixture->platform, 1000);
		platform_fake_fire_timers(fixture->platform, REGISTRY_FORGET_MS);
		assert_null(registry_find_entry(&fixture->registry, name));
	}
	assert_int_equal(
		try_forward(fixture, "shared", "8", "web:80", USER, NULL, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_QUOTA_EXCEEDED);
}

static void what_is_configured_is_no_more_than_priv_takes(void **state)
{
	static const char none[] = "{}";
	struct fixture *fixture = *state;
	struct config config;
	char listen[8];

	assert_int_equal(fixture->registry.forwards->count, 1);
	for (uint32_t i = 1; i < FORWARDS_MAX; i++) {
		snprintf(listen, sizeof(listen), "%u", 8000 + i);
		make_forward(fixture, "shared", listen, "web:80", 0, fixture);
	}
	config_init(&config);
	config_parse(&config, "networks.json", none, strlen(none));
	registry_set_config(&fixture->registry, &config);
	make_forward(fixture, "shared", "9999", "web:80", 0, fixture);
	registry_set_config(&fixture->registry, &fixture->config);
	assert_int_equal(fixture->registry.forwards->count, FORWARDS_MAX);
	config_done(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_rule_is_there_while_its_vm_is, set_up, tear_down),
		cmocka_unit_test_setup_teardown(root_leads_to_everybody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(configured_ones_are_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_same_again_changes_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_restart_leaves_them_in_force, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			records_that_are_none_are_set_aside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_the_kernel_refuses_is_not_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_cannot_be_listened_on_is_tried_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_gone_is_not_tried_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lost_rules_are_made_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_program_of_the_host_keeps_its_port, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			whose_network_it_is_not_is_told_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_network_that_was_forgotten_frees_no_quota, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_is_configured_is_no_more_than_priv_takes, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
