/* The registry over a platform without a system: lives of networks, holds and interfaces. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/interface.h"
#include "broker/platform-fake.h"
#include "broker/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDLE_MS 120000
#define USER    1000

struct fixture {
	char path[40];
	struct config config;
	struct platform *platform;
	struct records *records;
	struct registry registry;
	unsigned int changes;
};

/* What became of a hold that waited. */
struct answer {
	unsigned int count;
	bool granted;
	struct failure failure;
	struct network_hold **release; /* by the call-back, as a peer does that is gone */
};

static void take_answer(void *context, const struct failure *failure)
{
	struct answer *answer = context;

	answer->count++;
	answer->granted = !failure;
	if (failure)
		answer->failure = *failure;
	if (answer->release)
		network_release(take_ptr(*answer->release));
}

static void count_change(void *context)
{
	((struct fixture *)context)->changes++;
}

static void open_registry(struct fixture *fixture)
{
	assert_int_equal(records_open("state", "run", &fixture->records), 0);
	fixture->registry = (struct registry){
		.platform = fixture->platform,
		.records = fixture->records,
		.config = &fixture->config,
		.instance = 7,
		.idle_timeout_ms = IDLE_MS,
		.changed = count_change,
		.context = fixture,
	};
	assert_int_equal(registry_init(&fixture->registry), 0);
}

static void close_registry(struct fixture *fixture)
{
	registry_done(&fixture->registry);
	records_close(fixture->records);
}

static int set_up(void **state)
{
	static const char config[] = "{\"lab\": {\"mode\": \"host\", \"subnet\": \"10.77.0.0/30\", "
				     "\"mtu\": 9000},"
				     " \"bad\": {\"mode\": \"shard\"}}";
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	snprintf(fixture->path, sizeof(fixture->path), "/tmp/test-network-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	assert_int_equal(chdir(fixture->path), 0);
	assert_int_equal(mkdir("state", 0700), 0);
	assert_int_equal(mkdir("run", 0700), 0);
	config_init(&fixture->config);
	config_parse(&fixture->config, "networks.json", config, strlen(config));
	fixture->platform = platform_fake_new();
	assert_non_null(fixture->platform);
	open_registry(fixture);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[80];

	close_registry(fixture);
	platform_fake_free(fixture->platform);
	snprintf(command, sizeof(command), "rm -r %s", fixture->path);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

static enum network_state state_of(struct fixture *fixture, const char *name)
{
	struct network *network = registry_find(&fixture->registry, name);

	assert_non_null(network);
	return network->state;
}

static size_t count_interfaces(const struct fixture *fixture)
{
	size_t count = 0;

	for (const struct network *network = fixture->registry.networks; network;
		network = network->next)
		for (const struct interface *found = network->interfaces; found;
			found = found->next)
			count++;
	return count;
}

/* Asks for a hold that has to wait. */
static struct network_hold *start_to_acquire(
	struct fixture *fixture, const char *name, struct answer *answer)
{
	struct network_hold *hold;
	struct failure failure;

	*answer = (struct answer){.count = 0};
	assert_int_equal(
		network_acquire(&fixture->registry, name, &(struct credentials){.uid = USER},
			take_answer, answer, &hold, &failure),
		0);
	assert_false(hold->granted);
	return hold;
}

/* A hold on a network that serves. */
static struct network_hold *acquire(struct fixture *fixture, const char *name)
{
	struct network_hold *hold;
	struct failure failure;
	struct answer answer;

	if (state_of(fixture, name) != NETWORK_ABSENT) {
		assert_int_equal(network_acquire(&fixture->registry, name,
					 &(struct credentials){.uid = USER}, take_answer, &answer,
					 &hold, &failure),
			1);
		assert_true(hold->granted);
		return hold;
	}
	hold = start_to_acquire(fixture, name, &answer);
	platform_fake_say_started(fixture->platform, name);
	platform_fake_say_read(fixture->platform, name);
	assert_int_equal(answer.count, 1);
	assert_true(answer.granted);
	return hold;
}

static void assert_refused(
	struct fixture *fixture, const char *name, enum broker_error error, const char *reason)
{
	struct network_hold *hold;
	struct failure failure;
	struct answer answer;

	assert_int_equal(
		network_acquire(&fixture->registry, name, &(struct credentials){.uid = USER},
			take_answer, &answer, &hold, &failure),
		-ECANCELED);
	assert_int_equal(failure.error, error);
	assert_string_equal(failure.reason, reason);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static char *read_text(const char *path)
{
	cleanup_file FILE *file = fopen(path, "re");
	static char text[1024];

	assert_non_null(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	return text;
}

static void a_hold_waits_until_the_network_serves(void **state)
{
	struct fixture *fixture = *state;
	struct answer first, second;
	struct network_hold *one = start_to_acquire(fixture, "shared", &first);
	struct network_hold *two = start_to_acquire(fixture, "shared", &second);

	assert_int_equal(state_of(fixture, "shared"), NETWORK_STARTING);
	assert_int_equal(fixture->platform->networks_count, 1);
	assert_true(platform_fake_network(fixture->platform, "shared")->dhcp_runs);
	platform_fake_say_line(fixture->platform, "shared", "dnsmasq: reading /etc/resolv.conf");
	/* A VM's name cannot make it serve. */
	platform_fake_say_line(fixture->platform, "shared", "dnsmasq-dhcp: x started, version 1");
	assert_int_equal(first.count + second.count, 0);
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(first.count, 1);
	assert_int_equal(second.count, 1);
	assert_true(first.granted && second.granted);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	network_release(one);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	network_release(two);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_LINGERING);
}

static void a_call_back_may_release_its_hold(void **state)
{
	struct fixture *fixture = *state;
	struct answer first, second;
	struct network_hold *one = start_to_acquire(fixture, "shared", &first);
	struct network_hold *two = start_to_acquire(fixture, "shared", &second);

	first.release = &one;
	second.release = &two;
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(first.count, 1);
	assert_int_equal(second.count, 1);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_LINGERING);
}

static void an_unused_network_goes_after_the_idle_time(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");

	assert_true(exists("run/networks/shared.json"));
	assert_true(exists("run/networks/shared.hosts"));
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 0);
	network_release(hold);
	assert_false(registry_is_empty(&fixture->registry));
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	assert_int_equal(fixture->platform->networks_count, 0);
	assert_true(registry_is_empty(&fixture->registry));
	assert_true(fixture->changes >= 2);
	assert_false(exists("run/networks/shared.json"));
	assert_false(exists("run/networks/shared.hosts"));
	assert_true(exists("state/networks/shared.json"));
}

static void a_new_user_ends_the_idle_time(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");

	network_release(hold);
	hold = acquire(fixture, "shared");
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 0);
	network_release(hold);
}

static void a_bridge_that_stays_is_tried_again(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");

	network_release(hold);
	fixture->platform->destroy_error = -EBUSY;
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_LINGERING);
	/* It is as usable as before. */
	assert_true(platform_fake_network(fixture->platform, "shared")->dhcp_runs);
	fixture->platform->destroy_error = 0;
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
}

static void unknown_and_broken_networks_are_refused(void **state)
{
	struct fixture *fixture = *state;

	assert_refused(fixture, "blue", BROKER_ERROR_NOT_FOUND,
		"network \"blue\" does not exist; there are: bad, host, lab, shared");
	assert_refused(fixture, "bad", BROKER_ERROR_CREATE_FAILURE,
		"network \"bad\" is out of service: networks.json: bad.mode: \"shard\": one of "
		"shared, host, bridged");
	config_parse(&fixture->config, "networks.d/x.json", "{", 1);
	close_registry(fixture);
	open_registry(fixture);
	assert_refused(fixture, "blue", BROKER_ERROR_NOT_FOUND,
		"network \"blue\" does not exist; there are: bad, host, lab, shared; out of "
		"service: networks.d/x.json:1:1: string or '}' expected near end of file");
	assert_int_equal(fixture->platform->networks_count, 0);
}

#define ADHOC "host-192.168.200.1-24-99"

static void an_adhoc_network_is_made_by_its_name(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *one, *two;
	struct answer first, second;
	struct broker_network described;
	struct in_addr last;

	assert_null(registry_find(&fixture->registry, ADHOC));
	one = start_to_acquire(fixture, ADHOC, &first);
	two = start_to_acquire(fixture, ADHOC, &second);
	platform_fake_say_started(fixture->platform, ADHOC);
	assert_true(first.granted && second.granted);
	assert_int_equal(fixture->platform->networks_count, 1);
	network_describe(one->network, &described);
	assert_string_equal(described.mode, "host");
	assert_int_equal(text_to_ipv4("192.168.200.99", &last), 0);
	assert_int_equal(described.last_address.s_addr, last.s_addr);
	network_release(one);
	network_release(two);
}

static void an_adhoc_network_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct answer answer;
	struct network_hold *hold = start_to_acquire(fixture, ADHOC, &answer);
	int fd;

	platform_fake_say_started(fixture->platform, ADHOC);
	fd = open("state/" ADHOC ".leases", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	fd_close(fd);
	assert_true(exists("state/networks/" ADHOC ".json"));
	network_release(hold);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_null(registry_find(&fixture->registry, ADHOC));
	assert_int_equal(platform_fake_fire_timers(fixture->platform, REGISTRY_FORGET_MS), 1);
	assert_null(registry_find_entry(&fixture->registry, ADHOC));
	assert_false(exists("state/networks/" ADHOC ".json"));
	assert_false(exists("state/" ADHOC ".leases"));
}

static void an_adhoc_network_that_failed_is_forgotten(void **state)
{
	struct fixture *fixture = *state;

	fixture->platform->create_error = -EPERM;
	assert_refused(fixture, ADHOC, BROKER_ERROR_CREATE_FAILURE,
		"network \"" ADHOC "\": the fake failed");
	assert_int_equal(platform_fake_fire_timers(fixture->platform, REGISTRY_FORGET_MS), 1);
	assert_null(registry_find_entry(&fixture->registry, ADHOC));
	assert_false(exists("state/networks/" ADHOC ".json"));
}

static void a_clash_of_addresses_names_their_owner(void **state)
{
	struct fixture *fixture = *state;
	struct answer answer;
	struct network_hold *hold = start_to_acquire(fixture, ADHOC, &answer);

	platform_fake_say_started(fixture->platform, ADHOC);
	assert_refused(fixture, "shared-192.168.200.1-24-99", BROKER_ERROR_CREATE_FAILURE,
		"192.168.200.0/24 belongs to network \"" ADHOC "\"; choose other addresses");
	assert_refused(fixture, "shared-10.77.0.1-24-99", BROKER_ERROR_CREATE_FAILURE,
		"10.77.0.0/24 belongs to the configuration of network \"lab\"; choose other "
		"addresses");
	network_release(hold);
}

static void a_killed_broker_s_adhoc_networks_are_adopted_or_swept(void **state)
{
	struct fixture *fixture = *state;
	struct answer answer;
	struct network_hold *hold = start_to_acquire(fixture, ADHOC, &answer);

	platform_fake_say_started(fixture->platform, ADHOC);
	network_release(hold);
	close_registry(fixture);
	open_registry(fixture);
	assert_int_equal(registry_adopt(&fixture->registry), 0);
	assert_int_equal(state_of(fixture, ADHOC), NETWORK_LINGERING);
	assert_int_equal(registry_find(&fixture->registry, ADHOC)->settings.last_offset, 99);
	close_registry(fixture);
	fixture->platform->networks_count = 0;
	open_registry(fixture);
	assert_int_equal(registry_adopt(&fixture->registry), 0);
	assert_null(registry_find_entry(&fixture->registry, ADHOC));
	assert_false(exists("state/networks/" ADHOC ".json"));
	assert_false(exists("run/networks/" ADHOC ".json"));
}

static void a_user_has_so_many_adhoc_networks(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *holds[POLICY_NETWORKS_MAX], *hold;
	struct failure failure;
	struct answer answer;
	char name[NETWORK_NAME_SIZE];

	for (unsigned int i = 0; i < POLICY_NETWORKS_MAX; i++) {
		snprintf(name, sizeof(name), "host-192.168.%u.1-24-99", 100 + i);
		holds[i] = start_to_acquire(fixture, name, &answer);
		platform_fake_say_started(fixture->platform, name);
	}
	assert_refused(fixture, ADHOC, BROKER_ERROR_QUOTA_EXCEEDED,
		"user 1000 has 16 networks already, the limit of a user is 16; end the VMs of one");
	assert_int_equal(
		network_acquire(&fixture->registry, ADHOC, &(struct credentials){.uid = USER + 1},
			take_answer, &answer, &hold, &failure),
		0);
	network_release(hold);
	for (unsigned int i = 0; i < POLICY_NETWORKS_MAX; i++)
		network_release(holds[i]);
}

static void a_failed_bridge_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;

	fixture->platform->create_error = -EPERM;
	assert_refused(fixture, "shared", BROKER_ERROR_CREATE_FAILURE,
		"network \"shared\": the fake failed");
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	assert_false(exists("run/networks/shared.json"));
}

static void failed_nat_takes_the_bridge_away(void **state)
{
	struct fixture *fixture = *state;
	struct answer answer;
	struct network_hold *hold;

	fixture->platform->nat_error = -EPERM;
	hold = start_to_acquire(fixture, "shared", &answer);
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(answer.count, 1);
	assert_false(answer.granted);
	assert_string_equal(answer.failure.reason,
		"network \"shared\": NAT rules could not be applied: the fake failed");
	assert_int_equal(fixture->platform->networks_count, 0);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	assert_false(exists("run/networks/shared.json"));
	network_release(hold);
	/* Another try starts from the beginning. */
	fixture->platform->nat_error = 0;
	network_release(acquire(fixture, "shared"));
}

static void networks_of_one_moment_share_a_change_of_the_rules(void **state)
{
	struct fixture *fixture = *state;
	struct answer answers[2];
	struct network_hold *shared = start_to_acquire(fixture, "shared", &answers[0]);
	struct network_hold *lab = start_to_acquire(fixture, "lab", &answers[1]);

	assert_int_equal(fixture->platform->nat_applied, 0);
	/* Nobody is let in before. */
	platform_fake_say_started(fixture->platform, "lab");
	assert_true(answers[1].granted);
	assert_int_equal(fixture->platform->nat_applied, 1);
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 0), 0);
	assert_int_equal(fixture->platform->nat_applied, 1);
	network_release(shared);
	network_release(lab);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 2);
	assert_int_equal(fixture->platform->networks_count, 0);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 0), 1);
	assert_int_equal(fixture->platform->nat_applied, 2);
}

static void a_dnsmasq_that_cannot_start_takes_the_bridge_away(void **state)
{
	struct fixture *fixture = *state;

	fixture->platform->dhcp_error = -ENOENT;
	assert_refused(fixture, "shared", BROKER_ERROR_CREATE_FAILURE,
		"network \"shared\": its DHCP and DNS server dnsmasq does not start: the fake "
		"failed");
	assert_int_equal(fixture->platform->networks_count, 0);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 1000), 0);
}

static void a_dnsmasq_that_dies_at_its_start_fails_the_holds(void **state)
{
	struct fixture *fixture = *state;
	struct answer first, second;
	struct network_hold *one = start_to_acquire(fixture, "shared", &first);
	struct network_hold *two = start_to_acquire(fixture, "shared", &second);

	platform_fake_say_line(fixture->platform, "shared",
		"dnsmasq: failed to create listening socket: Address already in use");
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_int_equal(first.count, 1);
	assert_int_equal(second.count, 1);
	assert_false(first.granted || second.granted);
	assert_int_equal(first.failure.error, BROKER_ERROR_CREATE_FAILURE);
	assert_string_equal(first.failure.reason,
		"network \"shared\": its DHCP and DNS server dnsmasq does not start: failed to "
		"create listening socket: Address already in use");
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	assert_int_equal(fixture->platform->networks_count, 0);
	network_release(one);
	network_release(two);
	/* Another try starts from the beginning. */
	network_release(acquire(fixture, "shared"));
}

static void a_silent_dnsmasq_times_out(void **state)
{
	struct fixture *fixture = *state;
	struct answer answer;
	struct network_hold *hold = start_to_acquire(fixture, "shared", &answer);

	assert_int_equal(platform_fake_fire_timers(fixture->platform, 10000), 1);
	assert_int_equal(answer.count, 1);
	assert_false(answer.granted);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	network_release(hold);
}

static void a_dead_dnsmasq_is_started_again(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared"), *waiting;
	struct answer answer;

	/* The first time at once, while new holds wait. */
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_true(platform_fake_network(fixture->platform, "shared")->dhcp_runs);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	waiting = start_to_acquire(fixture, "shared", &answer);
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(answer.count, 1);
	assert_true(answer.granted);

	/* The second time in a row after a while. */
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_false(platform_fake_network(fixture->platform, "shared")->dhcp_runs);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 2000), 1);
	assert_true(platform_fake_network(fixture->platform, "shared")->dhcp_runs);

	/* And longer, if it does not even start; the network in use stays. */
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 4000), 1);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	platform_fake_say_started(fixture->platform, "shared");

	/* Having served for a time, its next death is the first one again. */
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 10000), 1);
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_true(platform_fake_network(fixture->platform, "shared")->dhcp_runs);
	network_release(hold);
	network_release(waiting);
}

static void a_removed_bridge_is_made_again_for_holds(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");

	platform_fake_remove_bridge(fixture->platform, "shared");
	assert_int_equal(state_of(fixture, "shared"), NETWORK_STARTING);
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	network_release(hold);
	platform_fake_remove_bridge(fixture->platform, "shared");
	assert_int_equal(state_of(fixture, "shared"), NETWORK_ABSENT);
	assert_int_equal(fixture->platform->networks_count, 0);
}

static void a_network_comes_back_on_its_subnet(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *shared = acquire(fixture, "shared"), *host = acquire(fixture, "host");
	struct broker_network described;

	network_describe(registry_find(&fixture->registry, "host"), &described);
	assert_int_equal(ntohl(described.gateway.s_addr), 0xc0a88001);
	network_release(shared);
	network_release(host);
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	close_registry(fixture);
	open_registry(fixture);
	/* Alone, it would have got the first one. */
	host = acquire(fixture, "host");
	network_describe(registry_find(&fixture->registry, "host"), &described);
	assert_int_equal(ntohl(described.gateway.s_addr), 0xc0a88001);
	network_release(host);
}

static void a_taken_subnet_is_moved_from(void **state)
{
	struct fixture *fixture = *state;
	struct broker_network described;
	struct ipv4_subnet taken;

	network_release(acquire(fixture, "shared"));
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	text_to_ipv4_subnet("192.168.64.0/24", &taken);
	subnet_uses_add(&fixture->platform->uses, taken, "route 192.168.64.0/24 of eth0");
	network_release(acquire(fixture, "shared"));
	network_describe(registry_find(&fixture->registry, "shared"), &described);
	assert_int_equal(ntohl(described.subnet.address.s_addr), 0xc0a88000);
}

static void a_taken_configured_subnet_is_an_error(void **state)
{
	struct fixture *fixture = *state;
	struct ipv4_subnet taken;

	text_to_ipv4_subnet("10.77.0.0/16", &taken);
	subnet_uses_add(&fixture->platform->uses, taken, "route 10.77.0.0/16 of eth0");
	assert_refused(fixture, "lab", BROKER_ERROR_CREATE_FAILURE,
		"network \"lab\": its configured subnet 10.77.0.0/30 is taken by route "
		"10.77.0.0/16 "
		"of eth0; configure another one or remove that");
	assert_int_equal(fixture->platform->networks_count, 0);
}

struct attached {
	struct interface *interface;
	struct interface_fds fds;
};

static struct attached attach_as(
	struct fixture *fixture, const char *name, uid_t uid, const char *hostname)
{
	struct create_interface_call call = {.queues = 0};
	struct attached attached;
	struct failure failure;

	snprintf(call.hostname, sizeof(call.hostname), "%s", hostname);
	assert_int_equal(interface_create(registry_find(&fixture->registry, name), &call,
				 &(struct interface_owner){.uid = uid}, &attached.interface,
				 &attached.fds, &failure),
		0);
	for (size_t i = 0; i < attached.fds.count; i++)
		close(attached.fds.fds[i]);
	return attached;
}

static void refuse_to_attach(struct fixture *fixture, const char *name, uid_t uid,
	const struct create_interface_call *call, enum broker_error error, const char *part)
{
	struct interface_fds fds;
	struct interface *interface;
	struct failure failure;

	assert_int_equal(interface_create(registry_find(&fixture->registry, name), call,
				 &(struct interface_owner){.uid = uid}, &interface, &fds, &failure),
		-ECANCELED);
	assert_int_equal(failure.error, error);
	assert_non_null(strstr(failure.reason, part));
}

static void an_interface_holds_its_network(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct attached attached = attach_as(fixture, "shared", USER, "web");
	uint32_t number = attached.interface->number;
	char record[64];

	snprintf(record, sizeof(record), "run/interfaces/%08x.json", number);
	assert_int_equal(attached.fds.count, 1);
	assert_int_equal(platform_fake_interface(fixture->platform, number)->port.queues, 1);
	assert_true(exists(record));
	network_release(hold);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	assert_int_equal(count_interfaces(fixture), 1);
	platform_fake_close_interface(fixture->platform, number);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_LINGERING);
	assert_int_equal(count_interfaces(fixture), 0);
	assert_false(exists(record));
}

static void an_interface_keeps_mac_and_address(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct interface_record first = attach_as(fixture, "shared", USER, "web").interface->record;
	struct interface_record other = attach_as(fixture, "shared", USER, "db").interface->record;
	struct interface_record again;

	assert_int_equal(ntohl(first.address.s_addr), 0xc0a84002);
	assert_int_equal(ntohl(other.address.s_addr), 0xc0a84003);
	while (fixture->platform->interfaces_count > 0)
		platform_fake_close_interface(
			fixture->platform, fixture->platform->interfaces[0].link.number);
	network_release(hold);
	platform_fake_fire_timers(fixture->platform, IDLE_MS);
	close_registry(fixture);
	open_registry(fixture);
	hold = acquire(fixture, "shared");
	again = attach_as(fixture, "shared", USER, "db").interface->record;
	assert_memory_equal(&again.mac, &other.mac, sizeof(again.mac));
	assert_memory_equal(&again.interface_id, &other.interface_id, sizeof(again.interface_id));
	assert_int_equal(again.address.s_addr, other.address.s_addr);
	platform_fake_close_interface(
		fixture->platform, fixture->platform->interfaces[0].link.number);
	/* The same name of another user is another VM. */
	again = attach_as(fixture, "shared", USER + 1, "db").interface->record;
	assert_memory_not_equal(&again.mac, &other.mac, sizeof(again.mac));
	network_release(hold);
}

static void two_live_interfaces_never_share_a_mac(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared"), *host = acquire(fixture, "host");
	struct create_interface_call call = {.has_mac = true, .mac = {{2, 0, 0, 0, 0, 1}}};
	struct interface_fds fds;
	struct interface *interface;
	struct failure failure;

	assert_int_equal(
		interface_create(registry_find(&fixture->registry, "shared"), &call,
			&(struct interface_owner){.uid = USER}, &interface, &fds, &failure),
		0);
	close(fds.fds[0]);
	refuse_to_attach(fixture, "shared", 0, &call, BROKER_ERROR_CONFLICT,
		"MAC 02:00:00:00:00:01 is in use on network \"shared\" by interface tap");
	refuse_to_attach(fixture, "shared", 0, &call, BROKER_ERROR_CONFLICT, "of user 1000");
	/* Another network is another cable. */
	assert_int_equal(
		interface_create(registry_find(&fixture->registry, "host"), &call,
			&(struct interface_owner){.uid = USER}, &interface, &fds, &failure),
		0);
	close(fds.fds[0]);
	network_release(hold);
	network_release(host);
}

static void a_full_subnet_is_told(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "lab");
	struct create_interface_call call = {.hostname = "two"};

	attach_as(fixture, "lab", USER, "one");
	refuse_to_attach(fixture, "lab", USER, &call, BROKER_ERROR_QUOTA_EXCEEDED,
		"network \"lab\" has no free address left in 10.77.0.0/30");
	assert_int_equal(fixture->platform->interfaces_count, 1);
	network_release(hold);
}

static void a_failed_interface_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct create_interface_call call = {.hostname = "web"};

	fixture->platform->attach_error = -EPERM;
	refuse_to_attach(fixture, "shared", USER, &call, BROKER_ERROR_CREATE_FAILURE,
		"no interface on network \"shared\": the fake failed");
	assert_int_equal(count_interfaces(fixture), 0);
	/* rmdir() wants it empty. */
	assert_int_equal(rmdir("run/interfaces"), 0);
	network_release(hold);
}

static size_t count_open_fds(void)
{
	size_t count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void vhost_comes_with_the_queues_where_there_is_one(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct network *network = registry_find(&fixture->registry, "shared");
	struct create_interface_call call = {.queues = 8, .vhost = true};
	struct interface *interface;
	struct interface_fds fds;
	struct failure failure;
	size_t open_fds = count_open_fds();

	for (int has_vhost = 1; has_vhost >= 0; has_vhost--) {
		fixture->platform->vhost_error = has_vhost ? 0 : -ENXIO;
		assert_int_equal(
			interface_create(network, &call, &(struct interface_owner){.uid = USER},
				&interface, &fds, &failure),
			0);
		assert_int_equal(fds.vhosts_count, has_vhost ? 8 : 0);
		assert_int_equal(fds.count, has_vhost ? 16 : 8);
		for (size_t i = 0; i < fds.count; i++)
			assert_int_equal(close(fds.fds[i]), 0);
	}
	fixture->platform->vhost_error = 0;
	fixture->platform->attach_error = -EPERM;
	refuse_to_attach(fixture, "shared", USER, &call, BROKER_ERROR_CREATE_FAILURE, "the fake");
	assert_int_equal(count_open_fds(), open_fds);
	network_release(hold);
}

static struct interface *attach_by_name(struct fixture *fixture, pid_t pid)
{
	const struct create_interface_call call = {.named = true};
	const struct interface_owner owner = {.uid = USER, .pid = pid};
	struct interface *interface;
	struct interface_fds fds;
	struct failure failure;

	assert_int_equal(interface_create(registry_find(&fixture->registry, "shared"), &call,
				 &owner, &interface, &fds, &failure),
		0);
	assert_int_equal(fds.count, 0);
	assert_true(interface->is_leased && interface->named);
	return interface;
}

static void a_named_interface_is_leased_to_its_process(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	uint32_t number = attach_by_name(fixture, 77)->number;
	uint32_t unknown = attach_by_name(fixture, 0)->number;

	assert_int_equal(platform_fake_interface(fixture->platform, number)->port.owner, USER);
	network_release(hold);
	close_registry(fixture);
	open_registry(fixture);
	assert_int_equal(registry_adopt(&fixture->registry), 0);
	assert_int_equal(fixture->platform->watched_number, number);
	assert_int_equal(fixture->platform->watched_process.pid, 77);
	assert_true(interface_find(&fixture->registry, number)->named);
	assert_null(platform_fake_interface(fixture->platform, unknown));
	assert_int_equal(registry_find(&fixture->registry, "shared")->state, NETWORK_RUNNING);
}

static void a_name_is_of_no_use_where_it_cannot_be_seen(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	const struct create_interface_call call = {.named = true};

	fixture->platform->hides_names = true;
	refuse_to_attach(fixture, "shared", USER, &call, BROKER_ERROR_INVALID_REQUEST,
		"vmnetctl exec -- vmnet-client --attach tap");
	attach_as(fixture, "shared", USER, "web");
	network_release(hold);
}

static void an_address_is_recorded_before_it_is_used(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct create_interface_call call = {.hostname = "web"};
	struct in_addr address;

	/* In the way of the record. */
	assert_int_equal(mkdir("state/networks/shared.json.new", 0700), 0);
	for (int tries = 0; tries < 2; tries++)
		refuse_to_attach(fixture, "shared", USER, &call, BROKER_ERROR_INTERNAL,
			"the address could not be recorded");
	assert_int_equal(rmdir("state/networks/shared.json.new"), 0);
	address = attach_as(fixture, "shared", USER, "web").interface->record.address;
	assert_non_null(strstr(read_text("state/networks/shared.json"), "\"192.168.64.2\""));
	assert_int_equal(ntohl(address.s_addr), 0xc0a84002);
	network_release(hold);
}

static void a_number_in_use_is_passed_over(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct platform *platform = fixture->platform;

	platform->interfaces[platform->interfaces_count++].link.number = 0x01010101;
	platform->next_random = 0;
	/* The id takes the first draw. */
	assert_int_equal(attach_as(fixture, "shared", USER, "").interface->number, 0x02020202);
	network_release(hold);
}

static void hosts_are_written_for_dnsmasq(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct fake_network *network = platform_fake_network(fixture->platform, "shared");
	char mac[MAC_TEXT_SIZE], expected[128];
	struct interface *web = attach_as(fixture, "shared", USER, "web").interface;

	mac_to_text(web->record.mac, mac);
	snprintf(expected, sizeof(expected), "%s,192.168.64.2,web.shared.vmnet\n", mac);
	assert_string_equal(read_text("run/networks/shared.hosts"), expected);
	assert_string_equal(
		read_text("run/networks/shared.names"), "192.168.64.2 web.shared.vmnet web\n");
	assert_int_equal(network->reloads, 1);
	platform_fake_say_read(fixture->platform, "shared");
	platform_fake_close_interface(fixture->platform, web->number);
	snprintf(expected, sizeof(expected), "%s,192.168.64.2\n", mac);
	assert_string_equal(read_text("run/networks/shared.hosts"), expected);
	assert_string_equal(read_text("run/networks/shared.names"), "");
	assert_int_equal(network->reloads, 2);
	network_release(hold);
}

static void name_servers_are_the_hosts_and_never_ourselves(void **state)
{
	struct fixture *fixture = *state;
	struct platform *platform = fixture->platform;
	struct network_hold *hold, *host;

	hold = acquire(fixture, "shared");
	assert_string_equal(read_text("run/networks/shared.resolvers"), "");
	platform->resolvers = "# comment\nsearch example.com\nnameserver 10.0.0.1\n"
			      "  nameserver\t2001:db8::1 # the second\nnameserver 192.168.64.1\n"
			      "nameservers 10.0.0.2\nnameserver\nnameserver fe80::1%eth0\n"
			      "options edns0\nnameserver 127.0.0.53";
	platform->events->resolvers_changed(platform->context);
	assert_string_equal(read_text("run/networks/shared.resolvers"),
		"nameserver 10.0.0.1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n"
		"nameserver 127.0.0.53\n");
	platform->resolvers = NULL;
	platform->events->resolvers_changed(platform->context);
	assert_string_equal(read_text("run/networks/shared.resolvers"), "");
	host = acquire(fixture, "host");
	assert_int_equal(access("run/networks/host.resolvers", F_OK), -1);
	network_release(host);
	network_release(hold);
	platform_fake_fire_timers(platform, IDLE_MS);
	assert_int_equal(access("run/networks/shared.resolvers", F_OK), -1);
}

static void a_name_is_one_vms(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct interface *web = attach_as(fixture, "shared", USER, "web").interface;
	struct create_interface_call call = {.hostname = "WEB"};

	refuse_to_attach(fixture, "shared", USER + 1, &call, BROKER_ERROR_CONFLICT,
		"hostname \"WEB\" is in use on network \"shared\" by interface ");
	snprintf(call.hostname, sizeof(call.hostname), "Gateway");
	refuse_to_attach(fixture, "shared", USER, &call, BROKER_ERROR_INVALID_REQUEST,
		"hostname \"Gateway\" can be no VM's");
	platform_fake_close_interface(fixture->platform, web->number);
	attach_as(fixture, "shared", USER + 1, "WEB");
	network_release(hold);
}

/* A VM with this MAC has a lease; its hosts file's line, without the MAC. */
static const char *lease(struct fixture *fixture, struct mac mac, const char *name)
{
	char mac_text[MAC_TEXT_SIZE];
	char line[160];
	const char *found;

	mac_to_text(mac, mac_text);
	snprintf(line, sizeof(line), "dnsmasq-dhcp: DHCPACK(vmbr01234567) 192.168.64.9 %s %s",
		mac_text, name);
	platform_fake_say_line(fixture->platform, "shared", line);
	found = strstr(read_text("run/networks/shared.hosts"), mac_text);
	assert_non_null(found);
	return found + strlen(mac_text);
}

static bool begins_with(const char *text, const char *begin)
{
	return strncmp(text, begin, strlen(begin)) == 0;
}

static void a_name_told_by_dhcp_is_kept_unless_it_is_anothers(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct interface *declared = attach_as(fixture, "shared", USER, "web").interface;
	struct interface *first = attach_as(fixture, "shared", USER, "").interface;
	struct interface *second = attach_as(fixture, "shared", USER, "").interface;
	struct create_interface_call call = {.hostname = "db"};
	char own_name[64];

	assert_true(begins_with(
		lease(fixture, first->record.mac, "db"), ",192.168.64.3,db.shared.vmnet\n"));
	/* A renewal, and a VM that says what it was told. */
	lease(fixture, first->record.mac, "db");
	lease(fixture, declared->record.mac, "web");
	snprintf(own_name, sizeof(own_name), ",192.168.64.4,vm-%02x", second->record.mac.bytes[0]);
	assert_true(begins_with(lease(fixture, second->record.mac, "DB"), own_name));
	lease(fixture, second->record.mac, "web");
	assert_true(begins_with(lease(fixture, second->record.mac, "free"), own_name));
	refuse_to_attach(fixture, "shared", USER, &call, BROKER_ERROR_CONFLICT, "\"db\" is in use");
	/* It is kept over a restart. */
	network_release(hold);
	close_registry(fixture);
	open_registry(fixture);
	assert_true(begins_with(lease(fixture, fixture->platform->interfaces[1].port.mac, "other"),
		",192.168.64.3,db.shared.vmnet\n"));
}

static void lines_that_are_no_lease_name_nobody(void **state)
{
	static const char *const lines[] = {
		"dnsmasq-dhcp: DHCPACK(vmbr0) 192.168.64.2 02:00:00:00:00:01 -bad",
		"dnsmasq-dhcp: DHCPACK(vmbr0) 192.168.64.2 02:00:00:00:00:01 ",
		"dnsmasq-dhcp: DHCPOFFER(vmbr0) 192.168.64.2 02:00:00:00:00:01 web",
		"dnsmasq-dhcp: x DHCPACK(vmbr0) 192.168.64.2 02:00:00:00:00:01 web",
		"dnsmasq-dhcp: DHCPACK(vmbr0) 192.168.64.2 02:00:00:00:00:02 web",
	};
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct create_interface_call call = {.has_mac = true, .mac = {{2, 0, 0, 0, 0, 1}}};
	struct interface_fds fds;
	struct interface *interface;
	struct failure failure;

	assert_int_equal(
		interface_create(registry_find(&fixture->registry, "shared"), &call,
			&(struct interface_owner){.uid = USER}, &interface, &fds, &failure),
		0);
	close(fds.fds[0]);
	for (size_t i = 0; i < array_length(lines); i++)
		platform_fake_say_line(fixture->platform, "shared", lines[i]);
	assert_string_equal(read_text("run/networks/shared.names"), "");
	network_release(hold);
}

static void hosts_wait_for_a_dnsmasq_that_starts(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct fake_network *network = platform_fake_network(fixture->platform, "shared");

	platform_fake_end_dhcp(fixture->platform, "shared");
	attach_as(fixture, "shared", USER, "web");
	assert_int_equal(network->reloads, 0);
	platform_fake_say_started(fixture->platform, "shared");
	assert_int_equal(network->reloads, 0);
	platform_fake_say_read(fixture->platform, "shared");
	assert_int_equal(network->reloads, 1);
	network_release(hold);
}

static void count_done(void *context)
{
	(*(unsigned int *)context)++;
}

/* An interface has been made; who made it waits for dnsmasq to know of it. */
static void start_to_wait(struct fixture *fixture, struct dhcp_waiter *waiter, unsigned int *count)
{
	*count = 0;
	*waiter = (struct dhcp_waiter){.done = count_done, .context = count};
	assert_true(
		dhcp_wait_for_hosts(&registry_find(&fixture->registry, "shared")->dhcp, waiter));
}

static void who_waits_for_hosts_waits_for_the_reading_behind_his_line(void **state)
{
	struct fixture *fixture = *state;
	unsigned int first_count, second_count;
	struct dhcp_waiter first, second;
	struct answer answer;
	struct network_hold *hold = start_to_acquire(fixture, "shared", &answer);
	struct fake_network *network = platform_fake_network(fixture->platform, "shared");

	platform_fake_say_started(fixture->platform, "shared");
	attach_as(fixture, "shared", USER, "one");
	start_to_wait(fixture, &first, &first_count);
	/* That of its start may have come too early for the line. */
	platform_fake_say_read(fixture->platform, "shared");
	assert_int_equal(first_count, 0);
	assert_int_equal(network->reloads, 1);
	attach_as(fixture, "shared", USER, "two");
	start_to_wait(fixture, &second, &second_count);
	assert_int_equal(network->reloads, 1);
	platform_fake_say_line(fixture->platform, "shared", "dnsmasq-dhcp: read /x/other.hosts");
	platform_fake_say_line(
		fixture->platform, "shared", "dnsmasq-dhcp: DHCPACK read /x/shared.hosts");
	assert_int_equal(first_count, 0);
	platform_fake_say_read(fixture->platform, "shared");
	assert_int_equal(first_count, 1);
	assert_int_equal(second_count, 0);
	assert_int_equal(network->reloads, 2);
	platform_fake_say_read(fixture->platform, "shared");
	assert_int_equal(first_count + second_count, 2);
	assert_int_equal(network->reloads, 2);
	assert_false(
		dhcp_wait_for_hosts(&registry_find(&fixture->registry, "shared")->dhcp, &first));
	network_release(hold);
}

static void nobody_waits_for_hosts_for_ever(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	unsigned int count;
	struct dhcp_waiter waiter;

	attach_as(fixture, "shared", USER, "silent");
	start_to_wait(fixture, &waiter, &count);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 1000), 1);
	assert_int_equal(count, 1);
	attach_as(fixture, "shared", USER, "dead");
	start_to_wait(fixture, &waiter, &count);
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_int_equal(count, 1);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, 1000), 0);
	platform_fake_say_started(fixture->platform, "shared");
	start_to_wait(fixture, &waiter, &count);
	dhcp_waiter_cancel(&waiter);
	dhcp_waiter_cancel(&waiter);
	platform_fake_say_read(fixture->platform, "shared");
	assert_int_equal(count, 0);
	network_release(hold);
}

static void a_tampered_interface_is_taken_away(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	uint32_t number = attach_as(fixture, "shared", USER, "web").interface->number;

	fixture->platform->events->interface_tampered(
		fixture->platform->context, number, "its holder changed its address");
	assert_null(platform_fake_interface(fixture->platform, number));
	/* It counts until the kernel says that it has gone. */
	assert_int_equal(count_interfaces(fixture), 1);
	platform_fake_close_interface(fixture->platform, number);
	assert_int_equal(count_interfaces(fixture), 0);
	network_release(hold);
}

static void nat_is_applied_again_only_for_networks(void **state)
{
	struct fixture *fixture = *state;
	struct platform *platform = fixture->platform;
	struct network_hold *hold;
	unsigned int applied;

	platform->events->nat_stale(platform->context, "test");
	assert_int_equal(platform->nat_applied, 0);
	hold = acquire(fixture, "shared");
	applied = platform->nat_applied;
	platform->events->nat_stale(platform->context, "test");
	assert_int_equal(platform->nat_applied, applied + 1);
	network_release(hold);
}

static void a_change_of_the_nat_rules_that_is_due_is_no_repair(void **state)
{
	struct fixture *fixture = *state;
	struct platform *platform = fixture->platform;
	unsigned int applied = platform->nat_applied;
	struct network_hold *hold;
	struct answer answer;

	/* What was said of the network before is heard when this one has its bridge already. */
	hold = start_to_acquire(fixture, "shared", &answer);
	platform->events->nat_stale(platform->context, "test");
	assert_int_equal(platform->nat_applied, applied + 1);
	assert_int_equal(platform_fake_fire_timers(platform, 0), 0);
	platform_fake_say_started(platform, "shared");
	assert_true(answer.granted);
	assert_int_equal(platform->nat_applied, applied + 1);
	network_release(hold);
}

static void the_guard_is_applied_again_only_for_networks(void **state)
{
	struct fixture *fixture = *state;
	struct platform *platform = fixture->platform;
	struct network_hold *hold;
	unsigned int applied = platform->guard_applied;

	platform->events->guard_stale(platform->context, "test");
	assert_int_equal(platform->guard_applied, applied);
	hold = acquire(fixture, "shared");
	platform->events->guard_stale(platform->context, "test");
	platform->events->guard_stale(platform->context, NULL);
	assert_int_equal(platform->guard_applied, applied + 2);
	network_release(hold);
}

/* As after a crash: the kernel's objects stay, a new registry finds them. */
static void restart(struct fixture *fixture)
{
	close_registry(fixture);
	open_registry(fixture);
	assert_int_equal(registry_adopt(&fixture->registry), 0);
}

static void networks_and_interfaces_are_adopted(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct interface *interface = attach_as(fixture, "shared", USER, "web").interface;
	struct interface_record record = interface->record;
	uint32_t number = interface->number;
	struct create_interface_call call = {.has_mac = true, .mac = record.mac};
	struct dhcp_waiter waiter;
	unsigned int count;

	network_release(hold);
	restart(fixture);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	interface = interface_find(&fixture->registry, number);
	assert_non_null(interface);
	assert_int_equal(interface->record.uid, USER);
	assert_int_equal(interface->record.address.s_addr, record.address.s_addr);
	refuse_to_attach(fixture, "shared", 0, &call, BROKER_ERROR_CONFLICT, "is in use");
	/* Its dnsmasq ran on and serves at once, and is heard: who comes waits for its next
	 * reading. */
	network_release(acquire(fixture, "shared"));
	start_to_wait(fixture, &waiter, &count);
	assert_int_equal(count, 0);
	platform_fake_say_read(fixture->platform, "shared");
	assert_int_equal(count, 1);
	platform_fake_close_interface(fixture->platform, number);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_LINGERING);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_int_equal(fixture->platform->networks_count, 0);
}

static uint32_t described_mtu(struct fixture *fixture, const char *name)
{
	struct broker_network described;

	network_describe(registry_find(&fixture->registry, name), &described);
	return described.mtu;
}

static void a_network_has_its_configured_mtu(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold;

	assert_int_equal(described_mtu(fixture, "lab"), 9000);
	assert_int_equal(described_mtu(fixture, "shared"), 1500);
	hold = acquire(fixture, "lab");
	assert_int_equal(platform_fake_network(fixture->platform, "lab")->link.mtu, 9000);
	assert_int_equal(described_mtu(fixture, "lab"), 9000);
	network_release(hold);
}

static void an_adopted_network_keeps_its_mtu(void **state)
{
	static const char config[] =
		"{\"lab\": {\"mode\": \"host\", \"subnet\": \"10.77.0.0/30\", \"mtu\": 1280}}";
	struct fixture *fixture = *state;

	network_release(acquire(fixture, "lab"));
	config_init(&fixture->config);
	config_parse(&fixture->config, "networks.json", config, strlen(config));
	restart(fixture);
	assert_int_equal(described_mtu(fixture, "lab"), 9000);
	assert_int_equal(platform_fake_network(fixture->platform, "lab")->link.mtu, 9000);
	/* Made anew, it is what the configuration says now. */
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	network_release(acquire(fixture, "lab"));
	assert_int_equal(described_mtu(fixture, "lab"), 1280);
}

static void an_adopted_network_starts_its_dnsmasq_again(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	struct answer answer;

	attach_as(fixture, "shared", USER, "web");
	network_release(hold);
	platform_fake_network(fixture->platform, "shared")->dhcp_runs = false;
	restart(fixture);
	assert_true(platform_fake_network(fixture->platform, "shared")->dhcp_runs);
	hold = start_to_acquire(fixture, "shared", &answer);
	/* With a VM on it the network stays even if that fails. */
	platform_fake_end_dhcp(fixture->platform, "shared");
	assert_int_equal(answer.count, 1);
	assert_false(answer.granted);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
	assert_int_equal(fixture->platform->networks_count, 1);
	network_release(hold);
}

static void an_adopted_network_without_users_lingers(void **state)
{
	struct fixture *fixture = *state;

	network_release(acquire(fixture, "shared"));
	restart(fixture);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_LINGERING);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_true(registry_is_empty(&fixture->registry));
}

static void an_unconfigured_network_is_adopted_until_it_goes(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "lab");

	network_release(hold);
	config_init(&fixture->config);
	restart(fixture);
	assert_int_equal(state_of(fixture, "lab"), NETWORK_LINGERING);
	assert_int_equal(platform_fake_fire_timers(fixture->platform, IDLE_MS), 1);
	assert_null(registry_find(&fixture->registry, "lab"));
	assert_refused(fixture, "lab", BROKER_ERROR_NOT_FOUND,
		"network \"lab\" does not exist; there are: host, shared");
}

static void what_was_tampered_with_meanwhile_is_not_adopted(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	uint32_t number = attach_as(fixture, "shared", USER, "web").interface->number;

	network_release(hold);
	platform_fake_interface(fixture->platform, number)->link.tampering = "it was changed";
	restart(fixture);
	assert_int_equal(fixture->platform->interfaces_count, 0);
	assert_null(interface_find(&fixture->registry, number));
}

static void an_interface_on_a_foreign_bridge_is_not_adopted(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	uint32_t number = attach_as(fixture, "shared", USER, "web").interface->number;

	network_release(hold);
	/* Its own has gone meanwhile; somebody put it on another. */
	fixture->platform->networks_count = 0;
	restart(fixture);
	assert_null(interface_find(&fixture->registry, number));
	assert_int_equal(fixture->platform->interfaces_count, 0);
}

static void a_lost_record_costs_the_owner_only(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");
	uint32_t number = attach_as(fixture, "shared", USER, "web").interface->number;
	char path[64];
	FILE *file;

	network_release(hold);
	snprintf(path, sizeof(path), "run/interfaces/%08x.json", number);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs("garbage", file);
	fclose(file);
	restart(fixture);
	assert_non_null(interface_find(&fixture->registry, number));
	assert_int_equal(
		interface_find(&fixture->registry, number)->record.uid, RECORDS_OWNER_UNKNOWN);
	assert_int_equal(state_of(fixture, "shared"), NETWORK_RUNNING);
}

static void records_of_what_has_gone_are_removed(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared");

	attach_as(fixture, "shared", USER, "web");
	network_release(hold);
	fixture->platform->networks_count = 0;
	fixture->platform->interfaces_count = 0;
	restart(fixture);
	assert_true(registry_is_empty(&fixture->registry));
	assert_false(exists("run/networks/shared.json"));
	assert_int_equal(rmdir("run/interfaces"), 0);
}

static void stopping_takes_only_unused_networks_away(void **state)
{
	struct fixture *fixture = *state;
	struct network_hold *hold = acquire(fixture, "shared"), *host = acquire(fixture, "host");
	uint32_t number = attach_as(fixture, "shared", USER, "web").interface->number;

	/* The connection that holds it ends with the broker. */
	registry_stop(&fixture->registry);
	assert_int_equal(state_of(fixture, "host"), NETWORK_ABSENT);
	assert_int_equal(fixture->platform->networks_count, 1);
	assert_non_null(platform_fake_network(fixture->platform, "shared"));
	network_release(host);
	network_release(hold);
	platform_fake_close_interface(fixture->platform, number);
	registry_stop(&fixture->registry);
	assert_int_equal(fixture->platform->networks_count, 0);
}

static void trouble_is_told_from_chatter(void **state)
{
	static const struct {
		const char *line;
		bool warning;
	} cases[] = {
		{"failed to create listening socket for 10.0.0.1: Address already in use", true},
		{"not using configured address 10.0.0.2 because it is leased to x", true},
		{"DHCP packet received on eth0 which has no address range: no address range", true},
		{"warning: no upstream servers configured", false},
		{"started, version 2.90 cachesize 150", false},
		{"DHCPACK(vmbr0) 10.0.0.2 52:54:00:00:00:01 web", false},
		{"DHCPACK(vmbr0) 10.0.0.2 52:54:00:00:00:01 failover", false},
		{"DHCPDISCOVER(vmbr0) 52:54:00:00:00:01 error", false},
		{"DHCP(vmbr0): bad packet", true},
		{"using nameserver 10.0.0.53#53", false},
	};

	for (size_t i = 0; i < array_length(cases); i++)
		assert_int_equal(dhcp_line_is_warning(cases[i].line), cases[i].warning);
}

#define REGISTRY_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		REGISTRY_TEST(a_hold_waits_until_the_network_serves),
		REGISTRY_TEST(a_call_back_may_release_its_hold),
		REGISTRY_TEST(an_unused_network_goes_after_the_idle_time),
		REGISTRY_TEST(a_new_user_ends_the_idle_time),
		REGISTRY_TEST(a_bridge_that_stays_is_tried_again),
		REGISTRY_TEST(unknown_and_broken_networks_are_refused),
		REGISTRY_TEST(an_adhoc_network_is_made_by_its_name),
		REGISTRY_TEST(an_adhoc_network_leaves_nothing),
		REGISTRY_TEST(an_adhoc_network_that_failed_is_forgotten),
		REGISTRY_TEST(a_clash_of_addresses_names_their_owner),
		REGISTRY_TEST(a_killed_broker_s_adhoc_networks_are_adopted_or_swept),
		REGISTRY_TEST(a_user_has_so_many_adhoc_networks),
		REGISTRY_TEST(a_failed_bridge_leaves_nothing),
		REGISTRY_TEST(failed_nat_takes_the_bridge_away),
		REGISTRY_TEST(networks_of_one_moment_share_a_change_of_the_rules),
		REGISTRY_TEST(a_dnsmasq_that_cannot_start_takes_the_bridge_away),
		REGISTRY_TEST(a_dnsmasq_that_dies_at_its_start_fails_the_holds),
		REGISTRY_TEST(a_silent_dnsmasq_times_out),
		REGISTRY_TEST(a_dead_dnsmasq_is_started_again),
		REGISTRY_TEST(a_removed_bridge_is_made_again_for_holds),
		REGISTRY_TEST(a_network_comes_back_on_its_subnet),
		REGISTRY_TEST(a_taken_subnet_is_moved_from),
		REGISTRY_TEST(a_taken_configured_subnet_is_an_error),
		REGISTRY_TEST(an_interface_holds_its_network),
		REGISTRY_TEST(an_interface_keeps_mac_and_address),
		REGISTRY_TEST(two_live_interfaces_never_share_a_mac),
		REGISTRY_TEST(a_full_subnet_is_told),
		REGISTRY_TEST(a_failed_interface_leaves_nothing),
		REGISTRY_TEST(vhost_comes_with_the_queues_where_there_is_one),
		REGISTRY_TEST(a_named_interface_is_leased_to_its_process),
		REGISTRY_TEST(a_name_is_of_no_use_where_it_cannot_be_seen),
		REGISTRY_TEST(an_address_is_recorded_before_it_is_used),
		REGISTRY_TEST(a_number_in_use_is_passed_over),
		REGISTRY_TEST(hosts_are_written_for_dnsmasq),
		REGISTRY_TEST(name_servers_are_the_hosts_and_never_ourselves),
		REGISTRY_TEST(a_name_is_one_vms),
		REGISTRY_TEST(a_name_told_by_dhcp_is_kept_unless_it_is_anothers),
		REGISTRY_TEST(lines_that_are_no_lease_name_nobody),
		REGISTRY_TEST(hosts_wait_for_a_dnsmasq_that_starts),
		REGISTRY_TEST(who_waits_for_hosts_waits_for_the_reading_behind_his_line),
		REGISTRY_TEST(nobody_waits_for_hosts_for_ever),
		REGISTRY_TEST(a_tampered_interface_is_taken_away),
		REGISTRY_TEST(nat_is_applied_again_only_for_networks),
		REGISTRY_TEST(a_change_of_the_nat_rules_that_is_due_is_no_repair),
		REGISTRY_TEST(the_guard_is_applied_again_only_for_networks),
		REGISTRY_TEST(networks_and_interfaces_are_adopted),
		REGISTRY_TEST(a_network_has_its_configured_mtu),
		REGISTRY_TEST(an_adopted_network_keeps_its_mtu),
		REGISTRY_TEST(an_adopted_network_starts_its_dnsmasq_again),
		REGISTRY_TEST(an_adopted_network_without_users_lingers),
		REGISTRY_TEST(an_unconfigured_network_is_adopted_until_it_goes),
		REGISTRY_TEST(what_was_tampered_with_meanwhile_is_not_adopted),
		REGISTRY_TEST(an_interface_on_a_foreign_bridge_is_not_adopted),
		REGISTRY_TEST(a_lost_record_costs_the_owner_only),
		REGISTRY_TEST(records_of_what_has_gone_are_removed),
		REGISTRY_TEST(stopping_takes_only_unused_networks_away),
		cmocka_unit_test(trouble_is_told_from_chatter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
