/* IPv6 forwarding on kernels before 6.17, which have it for all interfaces only; a directory plays
 * them. */

#include "base/cleanup.h"
#include "priv/forwarding.h"
#include "priv/sysctl.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define BRIDGE "vmbr12345678"
#define TAP    "vmtap12345678"

static char place[] = "/tmp/vmnet-forwarding-XXXXXX";

const char *sysctl_root(void)
{
	return place;
}

const char *links_runtime_directory(const struct links *links)
{
	return place;
}

int links_list_uplinks(struct links *links, int address_family, char (**ret_uplinks)[IFNAMSIZ],
	size_t *ret_uplinks_count)
{
	char(*uplinks)[IFNAMSIZ] = calloc(1, sizeof(*uplinks));

	assert_non_null(uplinks);
	strcpy(uplinks[0], "up0");
	*ret_uplinks = uplinks;
	*ret_uplinks_count = 1;
	return 0;
}

static void path_of(
	const char *family, const char *interface_name, const char *key, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s/conf/%s/%s", place, family, interface_name, key);
}

static int put(const char *family, const char *interface_name, const char *key, char value)
{
	char path[PATH_MAX];
	cleanup_file FILE *file = NULL;

	path_of(family, interface_name, key, path);
	file = fopen(path, "w");
	return file && fputc(value, file) == value ? 0 : -ENOENT;
}

int sysctl_set_interface(
	const char *family, const char *interface_name, const char *key, char value)
{
	return put(family, interface_name, key, value);
}

static char get(const char *family, const char *interface_name, const char *key)
{
	char path[PATH_MAX];
	cleanup_file FILE *file = NULL;

	path_of(family, interface_name, key, path);
	file = fopen(path, "r");
	assert_non_null(file);
	return (char)fgetc(file);
}

static int make_directory(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* up0 and every new interface take advertisements; lan0 does not, wifi0 would even as a router. */
static int make_host(void **state)
{
	static const struct {
		const char *name;
		char accept_ra;
	} interfaces[] = {{"all", '1'}, {"default", '1'}, {"up0", '1'}, {"lan0", '0'},
		{"wifi0", '2'}, {BRIDGE, '0'}, {TAP, '1'}};
	static const char *const families[] = {"ipv4", "ipv6"};
	char path[64];

	if (!mkdtemp(place))
		return -1;
	for (size_t family = 0; family < array_length(families); family++) {
		make_directory(families[family]);
		snprintf(path, sizeof(path), "%s/conf", families[family]);
		make_directory(path);
		for (size_t i = 0; i < array_length(interfaces); i++) {
			snprintf(path, sizeof(path), "%s/conf/%s", families[family],
				interfaces[i].name);
			if (make_directory(path) < 0)
				return -1;
			put(families[family], interfaces[i].name, "forwarding", '0');
			put("ipv6", interfaces[i].name, "accept_ra", interfaces[i].accept_ra);
		}
	}
	return 0;
}

static int remove_host(void **state)
{
	char command[PATH_MAX];

	snprintf(command, sizeof(command), "rm -r %s", place);
	return system(command);
}

static void apply(size_t bridges_count, bool has_ipv6)
{
	const struct bridge_facts bridge = {
		.name = BRIDGE, .mode = NETWORK_MODE_SHARED, .has_ipv6 = has_ipv6};
	struct verb_outcome outcome;

	outcome_init(&outcome);
	assert_int_equal(forwarding_apply(NULL, &bridge, bridges_count, &outcome), 0);
	outcome_done(&outcome);
}

static void assert_advertisements(char up0, char lan0, char wifi0, char others)
{
	assert_int_equal(get("ipv6", "up0", "accept_ra"), up0);
	assert_int_equal(get("ipv6", "lan0", "accept_ra"), lan0);
	assert_int_equal(get("ipv6", "wifi0", "accept_ra"), wifi0);
	assert_int_equal(get("ipv6", "default", "accept_ra"), others);
}

static void advertisements_are_kept_alive_and_all_is_put_back(void **state)
{
	apply(1, true);
	assert_int_equal(get("ipv6", "all", "forwarding"), '1');
	assert_int_equal(get("ipv4", "up0", "forwarding"), '1');
	assert_int_equal(get("ipv4", BRIDGE, "forwarding"), '1');
	assert_advertisements('2', '0', '2', '2');
	/* Again, as after every change of a route: nothing is forgotten. */
	apply(1, true);
	assert_advertisements('2', '0', '2', '2');
	apply(0, true);
	assert_int_equal(get("ipv6", "all", "forwarding"), '0');
	assert_int_equal(get("ipv4", "up0", "forwarding"), '0');
	assert_advertisements('1', '0', '2', '1');
}

static void bridge_without_ipv6_changes_nothing_of_it(void **state)
{
	apply(1, false);
	assert_int_equal(get("ipv4", "up0", "forwarding"), '1');
	assert_int_equal(get("ipv6", "all", "forwarding"), '0');
	assert_advertisements('1', '0', '2', '1');
	apply(0, false);
}

static void host_that_was_a_router_takes_no_advertisements_for_us(void **state)
{
	put("ipv6", "all", "forwarding", '1');
	apply(1, true);
	assert_advertisements('1', '0', '2', '1');
	apply(0, true);
	assert_int_equal(get("ipv6", "all", "forwarding"), '1');
	assert_advertisements('1', '0', '2', '1');
	put("ipv6", "all", "forwarding", '0');
}

/* They are as many as there are VMs, and the list of what is to be put back has an end. */
static void links_of_ours_are_not_remembered(void **state)
{
	apply(1, true);
	assert_int_equal(get("ipv6", TAP, "accept_ra"), '1');
	apply(0, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(advertisements_are_kept_alive_and_all_is_put_back),
		cmocka_unit_test(bridge_without_ipv6_changes_nothing_of_it),
		cmocka_unit_test(host_that_was_a_router_takes_no_advertisements_for_us),
		cmocka_unit_test(links_of_ours_are_not_remembered),
	};

	return cmocka_run_group_tests(tests, make_host, remove_host);
}
