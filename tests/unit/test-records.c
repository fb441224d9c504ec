/* Records: what comes back, and what happens to damaged ones. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/durable.h"
#include "broker/records.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	char path[40];
	struct records *records;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	snprintf(fixture->path, sizeof(fixture->path), "/tmp/test-records-XXXXXX");
	assert_non_null(mkdtemp(fixture->path));
	assert_int_equal(chdir(fixture->path), 0);
	assert_int_equal(mkdir("state", 0700), 0);
	assert_int_equal(mkdir("run", 0700), 0);
	assert_int_equal(records_open("state", "run", &fixture->records), 0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	char command[80];

	records_close(fixture->records);
	snprintf(command, sizeof(command), "rm -r %s", fixture->path);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(fixture);
	return 0;
}

static struct records *records_of(void **state)
{
	return ((struct fixture *)*state)->records;
}

static void write_text(const char *path, const char *text)
{
	cleanup_file FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

static void assert_text(const char *path, const char *expected)
{
	cleanup_file FILE *file = fopen(path, "re");
	char text[512] = "";

	assert_non_null(file);
	assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
	assert_string_equal(text, expected);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static struct mac mac_of(uint8_t last)
{
	return (struct mac){{2, 0, 0, 0, 0, last}};
}

static struct interface_record make_record(void)
{
	struct interface_record record = {
		.network = "blue",
		.uid = 4294967294,
		.mac = {{2, 0, 0, 0, 0, 9}},
		.interface_id = {{0x12, 0x34}},
		.hostname = "web",
		.queues = 4,
	};

	text_to_ipv4("10.0.0.9", &record.address);
	return record;
}

static void a_memory_comes_back_in_its_order(void **state)
{
	struct network_memory memory = {.has_subnet = true}, loaded;
	struct mac first = mac_of(2);

	text_to_ipv4_subnet("10.1.0.0/16", &memory.subnet);
	assert_int_equal(reservations_add(&memory.reservations, mac_of(2), 300), 0);
	assert_int_equal(reservations_add(&memory.reservations, mac_of(1), 2), 0);
	assert_int_equal(records_save_memory(records_of(state), "blue", &memory), 0);
	assert_text("state/networks/blue.json",
		"{\"subnet\":\"10.1.0.0/16\",\"reservations\":["
		"{\"mac\":\"02:00:00:00:00:02\",\"address\":\"10.1.1.44\"},"
		"{\"mac\":\"02:00:00:00:00:01\",\"address\":\"10.1.0.2\"}]}");
	assert_int_equal(records_load_memory(records_of(state), "blue", &loaded), 0);
	assert_true(loaded.has_subnet);
	assert_memory_equal(&loaded.subnet, &memory.subnet, sizeof(loaded.subnet));
	assert_int_equal(loaded.reservations.count, 2);
	assert_memory_equal(&loaded.reservations.entries[0].mac, &first, sizeof(first));
	assert_int_equal(loaded.reservations.entries[0].offset, 300);
	assert_int_equal(loaded.reservations.entries[1].offset, 2);
	reservations_done(&memory.reservations);
	reservations_done(&loaded.reservations);
}

static void nothing_recorded_is_said(void **state)
{
	struct network_memory memory;
	struct interface_record record;

	assert_int_equal(records_load_memory(records_of(state), "blue", &memory), -ENOENT);
	assert_int_equal(records_load_interface(records_of(state), 1, &record), -ENOENT);
	assert_int_equal(records_remove_interface(records_of(state), 1), 0);
	assert_int_equal(records_remove_network(records_of(state), "blue"), 0);
}

static void damaged_memories_are_set_aside(void **state)
{
	static const char *const texts[] = {
		"",
		"{",
		"[]",
		"{}",
		"{\"subnet\":\"10.0.0.0/24\"}",
		"{\"subnet\":\"10.0.0.1/24\",\"reservations\":[]}",
		"{\"subnet\":\"8.8.8.0/24\",\"reservations\":[]}",
		"{\"subnet\":\"10.0.0.0/24\",\"reservations\":[1]}",
		"{\"subnet\":\"10.0.0.0/24\",\"reservations\":[{\"mac\":\"x\",\"address\":\"10.0.0."
		"2\"}]}",
		"{\"subnet\":\"10.0.0.0/24\",\"reservations\":[{\"mac\":\"02:00:00:00:00:01\","
		"\"address\":\"10.0.1.2\"}]}",
		"{\"subnet\":\"10.0.0.0/24\",\"subnet\":\"10.0.0.0/24\",\"reservations\":[]}",
	};

	for (size_t i = 0; i < array_length(texts); i++) {
		struct network_memory memory;

		write_text("state/networks/blue.json", texts[i]);
		assert_int_equal(records_load_memory(records_of(state), "blue", &memory), -EBADMSG);
		assert_false(exists("state/networks/blue.json"));
		assert_true(exists("state/networks/blue.json.corrupt"));
		assert_int_equal(unlink("state/networks/blue.json.corrupt"), 0);
	}
}

static void an_interface_comes_back(void **state)
{
	struct interface_record record = make_record(), loaded;

	assert_int_equal(records_save_interface(records_of(state), 0xab, &record), 0);
	assert_true(exists("run/interfaces/000000ab.json"));
	assert_int_equal(records_load_interface(records_of(state), 0xab, &loaded), 0);
	assert_string_equal(loaded.network, "blue");
	assert_int_equal(loaded.uid, 4294967294);
	assert_memory_equal(&loaded.mac, &record.mac, sizeof(record.mac));
	assert_memory_equal(
		&loaded.interface_id, &record.interface_id, sizeof(record.interface_id));
	assert_int_equal(loaded.address.s_addr, record.address.s_addr);
	assert_string_equal(loaded.hostname, "web");
	assert_int_equal(loaded.queues, 4);
	assert_int_equal(records_remove_interface(records_of(state), 0xab), 0);
	assert_false(exists("run/interfaces/000000ab.json"));
}

static void damaged_interfaces_are_set_aside(void **state)
{
	static const char *const texts[] = {
		"garbage",
		"{\"network\":\"../../x\",\"uid\":0,\"mac\":\"02:00:00:00:00:01\",\"interfaceId\":"
		"\"12340000-0000-0000-0000-000000000000\",\"address\":\"10.0.0.2\",\"hostname\":"
		"\"\","
		"\"queues\":1}",
		"{\"network\":\"blue\",\"uid\":-1,\"mac\":\"02:00:00:00:00:01\",\"interfaceId\":"
		"\"12340000-0000-0000-0000-000000000000\",\"address\":\"10.0.0.2\",\"hostname\":"
		"\"\","
		"\"queues\":1}",
		"{\"network\":\"blue\",\"uid\":1,\"mac\":\"02:00:00:00:00:01\",\"interfaceId\":"
		"\"12340000-0000-0000-0000-000000000000\",\"address\":\"10.0.0.2\",\"hostname\":"
		"\"a,b\","
		"\"queues\":1}",
	};

	for (size_t i = 0; i < array_length(texts); i++) {
		struct interface_record record;

		write_text("run/interfaces/00000001.json", texts[i]);
		assert_int_equal(records_load_interface(records_of(state), 1, &record), -EBADMSG);
		assert_true(exists("run/interfaces/00000001.json.corrupt"));
	}
}

static void a_link_is_not_followed(void **state)
{
	struct interface_record record;

	write_text("secret", "{}");
	assert_int_equal(symlink("../../secret", "run/interfaces/00000001.json"), 0);
	assert_int_equal(records_load_interface(records_of(state), 1, &record), -EBADMSG);
	assert_text("secret", "{}");
}

static void a_write_replaces_the_whole_file(void **state)
{
	int directory = open("run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat status;

	assert_int_equal(durable_write(directory, "file", "a long text", 11, 0600), 0);
	/* A write that did not end is in nobody's way. */
	write_text("run/file" DURABLE_UNFINISHED, "half");
	assert_int_equal(durable_write(directory, "file", "short", 5, 0640), 0);
	assert_text("run/file", "short");
	assert_int_equal(stat("run/file", &status), 0);
	assert_int_equal(status.st_mode & 07777, 0640);
	assert_false(exists("run/file" DURABLE_UNFINISHED));
	close(directory);
}

static void a_failed_write_keeps_the_old_file(void **state)
{
	int directory = open("run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(durable_write(directory, "file", "old", 3, 0600), 0);
	/* A directory in the place of the unfinished file can not be replaced. */
	assert_int_equal(mkdir("run/file" DURABLE_UNFINISHED, 0700), 0);
	assert_true(durable_write(directory, "file", "new", 3, 0600) < 0);
	assert_text("run/file", "old");
	close(directory);
}

static bool keep_blue(void *context, const char *network)
{
	return strcmp(network, "blue") == 0;
}

static bool keep_two(void *context, uint32_t number)
{
	return number == 2;
}

static void a_network_comes_back_with_its_settings(void **state)
{
	struct network_record record = {.uid = 7}, loaded;
	struct network_settings *settings = &record.settings;

	network_settings_init(settings, NETWORK_MODE_HOST);
	text_to_ipv4_subnet("10.0.0.0/24", &record.subnet);
	settings->has_subnet = true;
	settings->subnet = record.subnet;
	settings->gateway_offset = 10;
	settings->last_offset = 20;
	settings->has_ipv6_prefix = true;
	inet_pton(AF_INET6, "fd00:1:2:3::", &settings->ipv6_prefix);
	settings->dhcp = false;
	settings->lock_mac = true;
	settings->lease_s = 777;
	strcpy(settings->domain, "lab.example");
	strcpy(settings->uplink, "eth0");
	assert_int_equal(records_save_network(records_of(state), "blue", &record), 0);
	assert_int_equal(records_load_network(records_of(state), "blue", &loaded), 0);
	assert_int_equal(loaded.uid, 7);
	assert_int_equal(loaded.subnet.address.s_addr, record.subnet.address.s_addr);
	assert_memory_equal(&loaded.settings, settings, sizeof(*settings));
	assert_int_equal(records_load_network(records_of(state), "green", &loaded), -ENOENT);
}

static void a_network_without_settings_is_set_aside(void **state)
{
	struct network_record loaded;

	write_text("run/networks/blue.json", "{\"subnet\":\"10.0.0.0/24\",\"uid\":7}");
	assert_int_equal(records_load_network(records_of(state), "blue", &loaded), -EBADMSG);
	assert_true(exists("run/networks/blue.json.corrupt"));
}

static void records_without_a_link_are_swept(void **state)
{
	struct network_record network = {.uid = 7};
	struct interface_record interface = make_record();

	text_to_ipv4_subnet("10.0.0.0/24", &network.subnet);
	assert_int_equal(records_save_network(records_of(state), "blue", &network), 0);
	assert_int_equal(records_save_network(records_of(state), "green", &network), 0);
	assert_int_equal(records_save_hosts(records_of(state), "blue", "b\n"), 0);
	assert_int_equal(records_save_hosts(records_of(state), "green", "g\n"), 0);
	write_text("run/networks/blue.json" DURABLE_UNFINISHED, "half");
	assert_int_equal(records_sweep_networks(records_of(state), keep_blue, NULL), 1);
	assert_true(exists("run/networks/blue.json"));
	assert_true(exists("run/networks/blue.hosts"));
	assert_false(exists("run/networks/green.json"));
	assert_false(exists("run/networks/green.hosts"));
	assert_false(exists("run/networks/blue.json" DURABLE_UNFINISHED));

	assert_int_equal(records_save_interface(records_of(state), 1, &interface), 0);
	assert_int_equal(records_save_interface(records_of(state), 2, &interface), 0);
	write_text("run/interfaces/zzz.json", "{}");
	assert_int_equal(records_sweep_interfaces(records_of(state), keep_two, NULL), 2);
	assert_false(exists("run/interfaces/00000001.json"));
	assert_true(exists("run/interfaces/00000002.json"));
	assert_int_equal(records_remove_network(records_of(state), "blue"), 0);
	assert_false(exists("run/networks/blue.hosts"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_memory_comes_back_in_its_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_recorded_is_said, set_up, tear_down),
		cmocka_unit_test_setup_teardown(damaged_memories_are_set_aside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_interface_comes_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			damaged_interfaces_are_set_aside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_network_comes_back_with_its_settings, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_network_without_settings_is_set_aside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_link_is_not_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_write_replaces_the_whole_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_failed_write_keeps_the_old_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			records_without_a_link_are_swept, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
