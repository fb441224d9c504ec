/* Who may use a network, and what the others are told. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/access.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define USER  4242424
#define GROUP 4300

static struct config config;
static struct registry registry;

static struct network network_of(const char *members)
{
	struct network network = {.name = "lab", .registry = &registry};
	char text[1024];

	snprintf(text, sizeof(text), "{\"lab\": {\"mode\": %s}}", members);
	config_done(&config);
	config_init(&config);
	config_parse(&config, "networks.json", text, strlen(text));
	network.config = config_find(&config, "lab");
	return network;
}

/* What name resolution does. */
static void resolve(const char *name, uint32_t id)
{
	struct config_names names = {0};
	struct config_principal *principal;
	enum config_name_kind kind;
	const struct config_network *network;

	while ((principal = config_next_name(&config, &names, &kind, &network)))
		if (strcmp(principal->name, name) == 0) {
			principal->id = id;
			principal->is_known = true;
		}
}

static const struct credentials root = {.uid = 0};
static const struct credentials user = {.uid = USER, .gid = USER};

static void assert_refused(const struct network *network, const char *reason)
{
	struct failure failure;

	assert_false(access_is_granted(network, &user));
	assert_int_equal(access_check(network, &user, &failure), -ECANCELED);
	assert_int_equal(failure.error, BROKER_ERROR_NOT_ALLOWED);
	assert_string_equal(failure.reason, reason);
	assert_true(access_is_granted(network, &root));
}

static void assert_granted(const struct network *network, const struct credentials *credentials)
{
	struct failure failure;

	assert_true(access_is_granted(network, credentials));
	assert_int_equal(access_check(network, credentials, &failure), 0);
}

static void without_a_list_all_may(void **state)
{
	struct network network = network_of("\"shared\"");

	assert_granted(&network, &user);
	assert_granted(&network, &root);
}

static void a_bridged_network_is_roots_unless_listed(void **state)
{
	struct network network = network_of("\"bridged\", \"uplink\": \"eth0\"");

	assert_refused(&network, "network \"lab\" is not open to user 4242424: networks.json: "
				 "lab.mode is bridged, which is root's alone unless lab.allow "
				 "lists others");
	network =
		network_of("\"bridged\", \"uplink\": \"eth0\", \"allow\": {\"users\": [4242424]}");
	assert_granted(&network, &user);
}

/* Whose networks are all his own; that there is none of this mode he hears when it is to start. */
static void a_bridged_network_is_not_roots_where_there_is_no_root(void **state)
{
	struct network network = network_of("\"bridged\", \"uplink\": \"eth0\"");

	registry.is_rootless = true;
	assert_granted(&network, &user);
	registry.is_rootless = false;
}

static void users_are_listed_by_name_and_number(void **state)
{
	struct network network =
		network_of("\"host\", \"allow\": {\"users\": [\"bob\", 4242425, \"alice\"]}");

	assert_refused(&network, "network \"lab\" is not open to user 4242424: networks.json: "
				 "lab.allow lists users bob (unknown), 4242425, alice (unknown)");
	resolve("bob", 1001);
	assert_refused(&network, "network \"lab\" is not open to user 4242424: networks.json: "
				 "lab.allow lists users bob, 4242425, alice (unknown)");
	resolve("alice", USER);
	assert_granted(&network, &user);
}

static void groups_are_those_of_the_process(void **state)
{
	gid_t groups[] = {1, GROUP};
	struct credentials main_group = {.uid = USER, .gid = GROUP};
	struct credentials other_group = {
		.uid = USER, .gid = USER, .groups = groups, .groups_count = 2};
	struct network network =
		network_of("\"host\", \"allow\": {\"users\": [1], \"groups\": [\"testers\"]}");

	assert_false(access_is_granted(&network, &other_group));
	resolve("testers", GROUP);
	assert_granted(&network, &main_group);
	assert_granted(&network, &other_group);
	assert_refused(&network, "network \"lab\" is not open to user 4242424: networks.json: "
				 "lab.allow lists user 1 and group testers");
}

static void an_empty_list_is_nobody(void **state)
{
	struct network network = network_of("\"host\", \"allow\": {\"groups\": []}");

	assert_refused(&network, "network \"lab\" is not open to user 4242424: networks.json: "
				 "lab.allow lists nobody");
}

static void a_long_list_is_cut(void **state)
{
	struct network network =
		network_of("\"host\", \"allow\": {\"users\": [1,2,3,4,5,6,7,8,9,10,11]}");

	assert_refused(&network, "network \"lab\" is not open to user 4242424: networks.json: "
				 "lab.allow lists users 1, 2, 3, 4, 5, 6, 7, 8, ...");
}

/* Its rules went with its configuration, and a mistake may be in the very list. */
static void what_is_not_configured_rightly_is_its_makers(void **state)
{
	struct network network = network_of("\"host\"");

	network.config = NULL;
	network.state = NETWORK_RUNNING;
	network.uid = 1;
	assert_refused(&network, "network \"lab\" is not open to user 4242424: it is not in the "
				 "configuration; it is there for who had it made");
	network.uid = USER;
	assert_granted(&network, &user);
	network = network_of("\"host\", \"alow\": 1");
	network.state = NETWORK_RUNNING;
	assert_false(access_is_granted(&network, &user));
	/* Making it is refused elsewhere, with the mistake itself. */
	network.state = NETWORK_ABSENT;
	assert_granted(&network, &user);
}

static void a_peer_is_known_with_its_groups(void **state)
{
	gid_t own[64];
	int count = getgroups(64, own);
	struct credentials credentials;
	int sockets[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	assert_int_equal(credentials_read(sockets[0], &credentials), 0);
	assert_int_equal(credentials.pid, getpid());
	assert_int_equal(credentials.uid, getuid());
	assert_int_equal(credentials.gid, getgid());
	assert_true(count >= 0);
	assert_int_equal(credentials.groups_count, count);
	for (int i = 0; i < count; i++)
		assert_true(credentials_have_group(&credentials, own[i]));
	assert_true(credentials_have_group(&credentials, getgid()));
	assert_false(credentials_have_group(&credentials, 987654));
	credentials_done(&credentials);
	close(sockets[0]);
	close(sockets[1]);
}

static void a_user_of_the_machine_has_a_name(void **state)
{
	char text[CREDENTIALS_TEXT_SIZE];

	credentials_describe(0, text);
	assert_string_equal(text, "user 0 (root)");
	credentials_describe(987654, text);
	assert_string_equal(text, "user 987654");
}

static int free_config(void **state)
{
	config_done(&config);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_list_all_may),
		cmocka_unit_test(a_bridged_network_is_roots_unless_listed),
		cmocka_unit_test(a_bridged_network_is_not_roots_where_there_is_no_root),
		cmocka_unit_test(users_are_listed_by_name_and_number),
		cmocka_unit_test(groups_are_those_of_the_process),
		cmocka_unit_test(an_empty_list_is_nobody),
		cmocka_unit_test(a_long_list_is_cut),
		cmocka_unit_test(what_is_not_configured_rightly_is_its_makers),
		cmocka_unit_test(a_peer_is_known_with_its_groups),
		cmocka_unit_test(a_user_of_the_machine_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, free_config);
}
