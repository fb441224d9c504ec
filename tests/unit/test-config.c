/* What a configuration says, and what it says of mistakes. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "broker/config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "networks.json"

#define ALL_KEYS                                                                                   \
	"mode, description, subnet, start, end, mask, ipv6, mtu, dhcp, dns, ra, lease_time, "      \
	"domain, reservations, isolation, lock_mac, uplink, allow, quotas, pinned, forwards"

/* Large: 256 networks with their errors. */
static struct config config;

static void parse(const char *text)
{
	config_done(&config);
	config_init(&config);
	config_parse(&config, FILE_NAME, text, strlen(text));
	config_check_overlaps(&config);
}

static const struct config_network *find(const char *name)
{
	const struct config_network *network = config_find(&config, name);

	assert_non_null(network);
	return network;
}

static void assert_serves(const char *name, enum network_mode mode)
{
	assert_string_equal(find(name)->error, "");
	assert_int_equal(find(name)->settings.mode, mode);
}

static void the_built_in_networks_always_exist(void **state)
{
	parse("{}");
	assert_int_equal(config.networks_count, 2);
	assert_int_equal(config.broken_count, 0);
	assert_serves("shared", NETWORK_MODE_SHARED);
	assert_serves("host", NETWORK_MODE_HOST);
	assert_false(find("shared")->settings.has_subnet);
	assert_null(config_find(&config, "default"));
	assert_null(config_find(&config, "Shared"));
}

static void networks_are_configured(void **state)
{
	char text[SUBNET_TEXT_SIZE];

	parse("{\"default\": {\"mode\": \"shared\"},"
	      " \"lab\": {\"subnet\": \"10.77.0.0/24\", \"mode\": \"host\"}}");
	assert_int_equal(config.networks_count, 4);
	assert_int_equal(config.broken_count, 0);
	assert_serves("default", NETWORK_MODE_SHARED);
	assert_false(find("default")->settings.has_subnet);
	assert_serves("lab", NETWORK_MODE_HOST);
	assert_true(find("lab")->settings.has_subnet);
	ipv4_subnet_to_text(find("lab")->settings.subnet, text);
	assert_string_equal(text, "10.77.0.0/24");
	assert_string_equal(find("lab")->file, FILE_NAME);
}

static void a_built_in_network_can_be_given_a_subnet(void **state)
{
	parse("{\"shared\": {\"subnet\": \"192.168.200.0/24\"}, \"host\": {\"mode\": \"host\"}}");
	assert_int_equal(config.networks_count, 2);
	assert_serves("shared", NETWORK_MODE_SHARED);
	assert_true(find("shared")->settings.has_subnet);
	assert_serves("host", NETWORK_MODE_HOST);
}

static void an_mtu_is_configured(void **state)
{
	parse("{\"least\": {\"mode\": \"host\", \"mtu\": 1280},"
	      " \"most\": {\"mtu\": 65520, \"mode\": \"shared\"},"
	      " \"usual\": {\"mode\": \"host\"}, \"shared\": {\"mtu\": 9000}}");
	assert_int_equal(config.broken_count, 0);
	assert_serves("least", NETWORK_MODE_HOST);
	assert_int_equal(find("least")->settings.mtu, 1280);
	assert_serves("most", NETWORK_MODE_SHARED);
	assert_int_equal(find("most")->settings.mtu, 65520);
	assert_int_equal(find("usual")->settings.mtu, 1500);
	assert_serves("shared", NETWORK_MODE_SHARED);
	assert_int_equal(find("shared")->settings.mtu, 9000);
	assert_int_equal(find("host")->settings.mtu, 1500);
}

static void a_mistake_names_the_key_and_takes_its_network_only(void **state)
{
	static const struct {
		const char *network;
		const char *error;
	} cases[] = {
		{"{\"mode\": \"shard\"}",
			"networks.json: x.mode: \"shard\": one of shared, host, bridged"},
		{"{\"mode\": 1}", "networks.json: x.mode: 1: one of shared, host, bridged"},
		{"{\"mode\": \"bridged\"}",
			"networks.json: x.uplink: missing; the interface of the host that VMs are "
			"put on, such as \"eth0\""},
		{"{}", "networks.json: x.mode: missing; one of shared, host, bridged"},
		{"{\"mode\": \"shared\", \"mdoe\": 1}",
			"networks.json: x.mdoe: unknown key; one of " ALL_KEYS},
		{"{\"mode\": \"shared\", \"mode\": \"host\"}",
			"networks.json: x.mode: given twice"},
		{"{\"mode\": \"shared\", \"m\\u006fde\": \"host\"}",
			"networks.json: x.mode: given twice"},
		{"{\"mode\": \"shared\", \"subnet\": {\"a\": 1, \"a\": 2}}",
			"networks.json: x.subnet: keys given twice inside it"},
		{"{\"mode\": \"shared\", \"subnet\": \"10.0.0.1/24\"}",
			"networks.json: x.subnet: \"10.0.0.1/24\": a network address and a prefix "
			"length of 8 to 30, such as \"192.168.64.0/24\""},
		{"{\"mode\": \"shared\", \"subnet\": 7}",
			"networks.json: x.subnet: 7: a network address and a prefix length of 8 to "
			"30, such as \"192.168.64.0/24\""},
		{"{\"mode\": \"shared\", \"subnet\": \"8.8.8.0/24\"}",
			"networks.json: x.subnet: \"8.8.8.0/24\": not private; inside 10.0.0.0/8, "
			"172.16.0.0/12 or 192.168.0.0/16"},
		{"{\"mode\": \"shared\", \"mtu\": 1279}",
			"networks.json: x.mtu: 1279: a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": 65521}",
			"networks.json: x.mtu: 65521: a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": -1500}",
			"networks.json: x.mtu: -1500: a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": 1500.0}",
			"networks.json: x.mtu: 1500.0: a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": \"1500\"}",
			"networks.json: x.mtu: \"1500\": a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": true}",
			"networks.json: x.mtu: true: a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": null}",
			"networks.json: x.mtu: null: a number of bytes from 1280 to 65520"},
		{"{\"mode\": \"shared\", \"mtu\": [1500]}",
			"networks.json: x.mtu: [1500]: a number of bytes from 1280 to 65520"},
		{"[\"}\", {\"mode\": \"shared\"}]",
			"networks.json: x: an object is needed, such as {\"mode\": \"shared\"}"},
		{"null", "networks.json: x: an object is needed, such as {\"mode\": \"shared\"}"},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		char text[512];

		snprintf(text, sizeof(text),
			"{\"a\\\"}\": {}, \"before\": {\"mode\": \"host\"}, \"x\": %s , "
			"\"after\": {\"mode\": \"shared\"}}",
			cases[i].network);
		parse(text);
		assert_string_equal(find("x")->error, cases[i].error);
		assert_serves("before", NETWORK_MODE_HOST);
		assert_serves("after", NETWORK_MODE_SHARED);
		assert_serves("shared", NETWORK_MODE_SHARED);
		assert_int_equal(config.broken_count, 1);
	}
}

static void the_mode_of_a_built_in_network_is_fixed(void **state)
{
	parse("{\"shared\": {\"mode\": \"host\"}}");
	assert_string_equal(find("shared")->error, "networks.json: shared.mode: \"host\": this "
						   "network is built in and always has mode "
						   "shared; give yours another name");
	assert_serves("host", NETWORK_MODE_HOST);
}

static void a_network_given_twice_is_out_of_service(void **state)
{
	parse("{\"a\": {\"mode\": \"host\"}, \"b\": {\"mode\": \"host\"}, \"a\": {\"mode\": "
	      "\"host\"}}");
	assert_string_equal(find("a")->error,
		"networks.json: a: given twice, the second time in networks.json");
	assert_serves("b", NETWORK_MODE_HOST);
}

static void a_network_in_two_files_is_out_of_service(void **state)
{
	static const char text[] = "{\"a\": {\"mode\": \"host\"}}";

	config_done(&config);
	config_init(&config);
	config_parse(&config, "networks.json", text, strlen(text));
	config_parse(&config, "networks.d/x.json", text, strlen(text));
	assert_string_equal(find("a")->error,
		"networks.json: a: given twice, the second time in networks.d/x.json");
}

static void a_syntax_error_names_line_and_column(void **state)
{
	static const struct {
		const char *text;
		const char *start;
	} cases[] = {
		{"{\"default\": {\"mode\": \"shared\"}\n  \"x\": 1}", "networks.json:2:5: "},
		{"", "networks.json:1:0: "},
		{"{\"a\": \"\xff\"}", "networks.json:1:"},
		{"{} {}", "networks.json:1:"},
		{"[1]", "networks.json:1:1: an object of networks is needed"},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		parse(cases[i].text);
		assert_int_equal(config.broken_count, 1);
		assert_int_equal(
			strncmp(config.broken[0], cases[i].start, strlen(cases[i].start)), 0);
		assert_int_equal(config.networks_count, 2);
		assert_serves("shared", NETWORK_MODE_SHARED);
	}
}

static void an_impossible_name_is_told(void **state)
{
	parse("{\"../x\": {\"mode\": \"host\"}, \"ok\": {\"mode\": \"host\"}}");
	assert_int_equal(config.broken_count, 1);
	assert_non_null(strstr(config.broken[0], "networks.json: \"../x\": no name for a network"));
	assert_int_equal(config.networks_count, 3);
	assert_serves("ok", NETWORK_MODE_HOST);
}

static void the_later_of_two_overlapping_subnets_is_out_of_service(void **state)
{
	parse("{\"a\": {\"mode\": \"host\", \"subnet\": \"10.1.0.0/16\"},"
	      " \"b\": {\"mode\": \"host\", \"subnet\": \"10.1.2.0/24\"},"
	      " \"c\": {\"mode\": \"host\", \"subnet\": \"10.2.2.0/24\"}}");
	assert_serves("a", NETWORK_MODE_HOST);
	assert_string_equal(find("b")->error,
		"networks.json: b.subnet: \"10.1.2.0/24\": overlaps 10.1.0.0/16 of network \"a\" "
		"(networks.json)");
	assert_serves("c", NETWORK_MODE_HOST);
}

static void too_many_networks_are_told(void **state)
{
	static char text[CONFIG_NETWORKS_MAX * 32];
	size_t used = 1;

	text[0] = '{';
	for (int i = 0; i < CONFIG_NETWORKS_MAX; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used,
			"%s\"n%d\":{\"mode\":\"host\"}", i ? "," : "", i);
	snprintf(text + used, sizeof(text) - used, "}");
	parse(text);
	assert_int_equal(config.networks_count, CONFIG_NETWORKS_MAX);
	/* Two places are the built-in ones'. */
	assert_int_equal(config.broken_count, 2);
	assert_non_null(strstr(config.broken[0], "more than 256 networks"));
}

static void write_file(int directory, const char *name, const char *text)
{
	cleanup_fd int fd = openat(directory, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void a_directory_is_loaded(void **state)
{
	char path[] = "/tmp/test-config-XXXXXX";
	cleanup_fd int directory = -1;

	assert_non_null(mkdtemp(path));
	directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(directory >= 0);
	assert_int_equal(mkdirat(directory, "networks.d", 0700), 0);
	write_file(directory, "networks.json", "{\"one\": {\"mode\": \"host\"}}");
	write_file(directory, "networks.d/20.json", "{\"two\": {\"mode\": \"shared\"}}");
	write_file(directory, "networks.d/10.json", "{\"three\"}");
	write_file(directory, "networks.d/30.txt", "not ours");
	config_done(&config);
	config_load(&config, path);
	unlinkat(directory, "networks.d/30.txt", 0);
	unlinkat(directory, "networks.d/20.json", 0);
	unlinkat(directory, "networks.d/10.json", 0);
	unlinkat(directory, "networks.d", AT_REMOVEDIR);
	unlinkat(directory, "networks.json", 0);
	rmdir(path);

	assert_int_equal(config.networks_count, 4);
	assert_serves("one", NETWORK_MODE_HOST);
	assert_serves("two", NETWORK_MODE_SHARED);
	assert_string_equal(find("two")->file, "networks.d/20.json");
	assert_int_equal(config.broken_count, 1);
	assert_non_null(strstr(config.broken[0], "networks.d/10.json:1:9: "));
}

static void no_directory_is_no_configuration(void **state)
{
	config_done(&config);
	config_load(&config, "/nonexistent/vmnet");
	assert_int_equal(config.networks_count, 2);
	assert_int_equal(config.broken_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_built_in_networks_always_exist),
		cmocka_unit_test(networks_are_configured),
		cmocka_unit_test(a_built_in_network_can_be_given_a_subnet),
		cmocka_unit_test(an_mtu_is_configured),
		cmocka_unit_test(a_mistake_names_the_key_and_takes_its_network_only),
		cmocka_unit_test(the_mode_of_a_built_in_network_is_fixed),
		cmocka_unit_test(a_network_given_twice_is_out_of_service),
		cmocka_unit_test(a_network_in_two_files_is_out_of_service),
		cmocka_unit_test(a_syntax_error_names_line_and_column),
		cmocka_unit_test(an_impossible_name_is_told),
		cmocka_unit_test(the_later_of_two_overlapping_subnets_is_out_of_service),
		cmocka_unit_test(too_many_networks_are_told),
		cmocka_unit_test(a_directory_is_loaded),
		cmocka_unit_test(no_directory_is_no_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
