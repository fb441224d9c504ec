/* Whose packets a capture may have, over a platform without a system. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/capture.h"
#include "broker/interface.h"
#include "broker/platform-fake.h"
#include "broker/policy.h"
#include "wire/varlink.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER  1000
#define OTHER 1001

struct fixture {
	char path[48];
	struct config config;
	struct platform *platform;
	struct records *records;
	struct registry registry;
};

static const char configured[] =
	"{\"lab\": {\"mode\": \"host\", \"subnet\": \"10.0.0.0/24\", \"ipv6\": false},"
	" \"closed\": {\"mode\": \"host\", \"subnet\": \"10.0.1.0/24\", \"ipv6\": false, "
	"\"allow\": {\"users\": [1]}}}";

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	snprintf(fixture->path, sizeof(fixture->path), "/tmp/test-capture-XXXXXX");
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
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[80];

	assert_null(fixture->registry.captures);
	assert_null(fixture->registry.listeners);
	assert_int_equal(fixture->platform->captures_running, 0);
	registry_done(&fixture->registry);
	records_close(fixture->records);
	platform_fake_free(fixture->platform);
	config_done(&fixture->config);
	snprintf(command, sizeof(command), "rm -r %s", fixture->path);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

static uint32_t attach(struct fixture *fixture, uid_t uid, const char *hostname)
{
	const struct credentials user = {.uid = uid};
	struct create_interface_call call = {0};
	struct interface_fds fds;
	struct interface *interface;
	struct network_hold *hold;
	struct failure failure;
	uint32_t number;

	snprintf(call.hostname, sizeof(call.hostname), "%s", hostname);
	assert_int_equal(
		network_acquire(&fixture->registry, "lab", &user, NULL, NULL, &hold, &failure), 1);
	assert_int_equal(interface_create(hold->network, &call,
				 &(struct interface_owner){.uid = uid}, &interface, &fds, &failure),
		0);
	number = interface->number;
	for (size_t i = 0; i < fds.count; i++)
		fd_close(fds.fds[i]);
	network_release(hold);
	return number;
}

static struct capture *start(
	struct fixture *fixture, uid_t uid, const struct capture_call *call, size_t interfaces)
{
	struct capture *capture;
	struct failure failure;
	size_t count;
	int stream;

	assert_int_equal(capture_start(&fixture->registry, &(struct credentials){.uid = uid}, call,
				 &capture, &stream, &count, &failure),
		0);
	assert_int_equal(count, interfaces);
	fd_close(stream);
	return capture;
}

static void assert_refused(struct fixture *fixture, uid_t uid, const struct capture_call *call,
	enum broker_error error, const char *part)
{
	struct capture *capture;
	struct failure failure;
	size_t count;
	int stream;

	assert_int_equal(capture_start(&fixture->registry, &(struct credentials){.uid = uid}, call,
				 &capture, &stream, &count, &failure),
		-ECANCELED);
	assert_int_equal(failure.error, error);
	if (!strstr(failure.reason, part))
		fail_msg("\"%s\" is not in \"%s\"", part, failure.reason);
}

static void assert_captured(const struct fixture *fixture, uint32_t number, bool expected)
{
	char part[16];

	snprintf(part, sizeof(part), " %u ", number);
	assert_int_equal(strstr(fixture->platform->captured, part) != NULL, expected);
}

static void a_user_gets_his_own_and_root_gets_all(void **state)
{
	static const struct capture_call call = {.network = "lab", .snaplen = 262144};
	struct fixture *fixture = *state;
	uint32_t mine = attach(fixture, USER, "mine"), theirs = attach(fixture, OTHER, "theirs");
	uint32_t mine_later, theirs_later;
	struct capture *capture = start(fixture, USER, &call, 1);

	assert_non_null(strstr(fixture->platform->captured, " mine 10.0.0."));
	mine_later = attach(fixture, USER, "later");
	theirs_later = attach(fixture, OTHER, "");
	assert_captured(fixture, mine, true);
	assert_captured(fixture, mine_later, true);
	assert_captured(fixture, theirs, false);
	assert_captured(fixture, theirs_later, false);
	capture_free(capture);
	*fixture->platform->captured = '\0';
	capture = start(fixture, 0, &call, 4);
	assert_captured(fixture, theirs, true);
	capture_free(capture);
	*fixture->platform->captured = '\0';
	attach(fixture, USER, "after");
	assert_string_equal(fixture->platform->captured, "");
}

static void an_interface_is_captured_alone(void **state)
{
	struct fixture *fixture = *state;
	uint32_t mine = attach(fixture, USER, "mine");
	struct capture_call call = {.snaplen = 64};
	struct capture *capture;

	platform_interface_name(mine, call.interface);
	assert_refused(fixture, OTHER, &call, BROKER_ERROR_NOT_FOUND, "of yours");
	capture = start(fixture, USER, &call, 1);
	*fixture->platform->captured = '\0';
	attach(fixture, USER, "other");
	assert_string_equal(fixture->platform->captured, "");
	capture_free(capture);
	capture_free(start(fixture, 0, &call, 1));
}

static void what_cannot_be_captured(void **state)
{
	struct fixture *fixture = *state;
	const struct capture_call absent = {.network = "lab"}, unknown = {.network = "typo"};
	const struct capture_call closed = {.network = "closed"}, none = {.interface = "up0"};

	assert_refused(fixture, USER, &absent, BROKER_ERROR_NOT_FOUND, "does not run");
	assert_refused(fixture, USER, &unknown, BROKER_ERROR_NOT_FOUND, "does not exist");
	assert_refused(fixture, USER, &closed, BROKER_ERROR_NOT_ALLOWED, "closed");
	assert_refused(fixture, 0, &none, BROKER_ERROR_NOT_FOUND, "no interface \"up0\"");
	attach(fixture, USER, "mine");
	fixture->platform->capture_error = -ENOSPC;
	assert_refused(fixture, USER, &absent, BROKER_ERROR_QUOTA_EXCEEDED, "could not be started");
	fixture->platform->capture_error = -EIO;
	assert_refused(fixture, USER, &absent, BROKER_ERROR_CREATE_FAILURE, "could not be started");
}

static void there_are_no_more_than_so_many(void **state)
{
	static const struct capture_call call = {.network = "lab", .snaplen = 64};
	struct fixture *fixture = *state;
	struct capture *captures[POLICY_CAPTURES_OF_USERS + 1];
	size_t count = 0;

	for (uid_t uid = 1; uid <= 3; uid++) {
		attach(fixture, uid, "");
		for (int i = 0; i < POLICY_CAPTURES_MAX; i++)
			captures[count++] = start(fixture, uid, &call, 1);
		assert_refused(fixture, uid, &call, BROKER_ERROR_QUOTA_EXCEEDED, "you run 4");
	}
	assert_int_equal(count, POLICY_CAPTURES_OF_USERS);
	assert_refused(fixture, USER, &call, BROKER_ERROR_QUOTA_EXCEEDED, "users run 12");
	captures[count++] = start(fixture, 0, &call, 3);
	while (count > 0)
		capture_free(captures[--count]);
}

static void they_cannot_be_started_all_the_time(void **state)
{
	struct fixture *fixture = *state;
	const struct capture_call whole = {.network = "lab"};
	uint64_t free_at_ms = 0;
	struct failure failure;

	attach(fixture, 1000, "web");
	for (size_t i = 0; i < POLICY_CAPTURE_BURST / (POLICY_CAPTURE_START + 1); i++)
		capture_free(start(fixture, 1000, &whole, 1));
	/* Whatever time has passed. */
	fixture->registry.captures_free_at_ms += 16000;
	assert_refused(fixture, 1000, &whole, BROKER_ERROR_QUOTA_EXCEEDED, "again in");
	capture_free(start(fixture, 0, &whole, 1));
	assert_int_equal(policy_pace_capture(1000, 500, 5000, &free_at_ms, &failure), 0);
	assert_int_equal(policy_pace_capture(1000, 500, 5000, &free_at_ms, &failure), -ECANCELED);
	assert_non_null(strstr(failure.reason, "again in 1 s"));
	assert_int_equal(policy_pace_capture(0, 500, 5000, &free_at_ms, &failure), 0);
	assert_int_equal(policy_pace_capture(1000, 500, 5125, &free_at_ms, &failure), 0);
	assert_int_equal(policy_pace_capture(1000, 500, 5125, &free_at_ms, &failure), -ECANCELED);
	assert_non_null(strstr(failure.reason, "again in 9 s"));
}

static void what_is_asked_for(void **state)
{
	static const struct {
		const char *text, *reason; /* NULL: it is right */
	} cases[] = {
		{"{\"network\": \"lab\"}", NULL},
		{"{\"interface\": \"vmtap00000001\", \"snaplen\": 64, \"count\": 4294967295}",
			NULL},
		{"{}", "one of the parameters network and interface"},
		{"{\"network\": \"lab\", \"interface\": \"x\"}", "not both"},
		{"{\"network\": \"../x\"}", "network name"},
		{"{\"interface\": 7}", "name of an interface"},
		{"{\"interface\": \"\"}", "name of an interface"},
		{"{\"interface\": \"aaaaaaaaaaaaaaaa\"}", "name of an interface"},
		{"{\"network\": \"lab\", \"snaplen\": 63}", "64 to 262144"},
		{"{\"network\": \"lab\", \"snaplen\": 262145}", "64 to 262144"},
		{"{\"network\": \"lab\", \"snaplen\": \"64\"}", "64 to 262144"},
		{"{\"network\": \"lab\", \"count\": 0}", "1 to 4294967295"},
		{"{\"network\": \"lab\", \"count\": 4294967296}", "1 to 4294967295"},
		{"{\"network\": \"lab\", \"counts\": 1}", "unknown parameter"},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		cleanup_json json_t *parameters = json_loads(cases[i].text, 0, NULL);
		char reason[BROKER_REASON_SIZE] = "";
		struct capture_call call;
		int error = capture_call_decode(parameters, &call, reason);

		assert_int_equal(error, cases[i].reason ? -EINVAL : 0);
		if (cases[i].reason && !strstr(reason, cases[i].reason))
			fail_msg("\"%s\" is not in \"%s\"", cases[i].reason, reason);
		if (i == 0)
			assert_true(call.snaplen == 262144 && call.count == 0);
	}
}

#define CAPTURE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURE_TEST(a_user_gets_his_own_and_root_gets_all),
		CAPTURE_TEST(an_interface_is_captured_alone),
		CAPTURE_TEST(what_cannot_be_captured),
		CAPTURE_TEST(there_are_no_more_than_so_many),
		CAPTURE_TEST(they_cannot_be_started_all_the_time),
		cmocka_unit_test(what_is_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
