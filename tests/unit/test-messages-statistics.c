/* The messages about networks, leases and counters. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "wire/messages.h"
#include "wire/varlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static const struct traffic example = {
	{1, 2, 3},
	{UINT64_C(1) << 40, INT64_MAX, 0},
};

static void traffic_comes_through_as_it_was(void **state)
{
	cleanup_json json_t *object = traffic_encode(&example);
	cleanup_free char *text = json_dumps(object, JSON_COMPACT);
	struct traffic read;

	assert_non_null(text);
	assert_true(strlen(text) <= TRAFFIC_TEXT_MAX);
	assert_int_equal(traffic_from_text(text, strlen(text), &read), 0);
	assert_memory_equal(&read, &example, sizeof(read));
}

static void the_largest_traffic_fits(void **state)
{
	const struct traffic_counters most = {INT64_MAX, INT64_MAX, INT64_MAX};
	const struct traffic traffic = {most, most};
	cleanup_json json_t *object = traffic_encode(&traffic);
	cleanup_free char *text = json_dumps(object, JSON_COMPACT);

	assert_true(strlen(text) <= TRAFFIC_TEXT_MAX);
}

#define COUNTERS "{\"packets\":1,\"bytes\":2,\"drops\":3}"

static void what_a_hostile_helper_says_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"{}",
		"[]",
		"null",
		"{\"hostToVm\":" COUNTERS "}",
		"{\"hostToVm\":" COUNTERS ",\"vmToHost\":[]}",
		"{\"hostToVm\":" COUNTERS ",\"vmToHost\":{\"packets\":1,\"bytes\":2}}",
		"{\"hostToVm\":" COUNTERS ",\"vmToHost\":{\"packets\":-1,\"bytes\":2,\"drops\":3}}",
		"{\"hostToVm\":" COUNTERS
		",\"vmToHost\":{\"packets\":1.5,\"bytes\":2,\"drops\":3}}",
		"{\"hostToVm\":" COUNTERS
		",\"vmToHost\":{\"packets\":99999999999999999999,\"bytes\":2,\"drops\":3}}",
		"{\"hostToVm\":" COUNTERS ",\"vmToHost\":" COUNTERS ",\"vmToHost\":" COUNTERS "}",
		"{\"hostToVm\":" COUNTERS ",\"vmToHost\":" COUNTERS "} x",
	};
	char nested[TRAFFIC_TEXT_MAX];
	struct traffic traffic = {.host_to_vm = {7, 7, 7}};

	for (size_t i = 0; i < array_length(texts); i++)
		assert_true(traffic_from_text(texts[i], strlen(texts[i]), &traffic) < 0);
	memset(nested, '[', sizeof(nested));
	assert_true(traffic_from_text(nested, sizeof(nested), &traffic) < 0);
	assert_int_equal(traffic_from_text(nested, TRAFFIC_TEXT_MAX + 1, &traffic), -EMSGSIZE);
	assert_int_equal(traffic.host_to_vm.packets, 7);
}

static void what_is_not_known_is_left_out(void **state)
{
	struct broker_statistics statistics = {
		.network = "shared",
		.interface_name = "vmtap1",
	};
	struct listed_lease lease = {.network = "shared", .expires_in_s = 5};
	cleanup_json json_t *bare = broker_statistics_encode(&statistics);
	cleanup_json json_t *nobodys = listed_lease_encode(&lease);
	cleanup_json json_t *full = NULL;

	assert_int_equal(json_object_size(bare), 2);
	assert_int_equal(json_object_size(nobodys), 4);
	assert_null(json_object_get(nobodys, "uid"));
	statistics.has_uid = statistics.has_kernel = statistics.has_helper = true;
	text_copy(statistics.hostname, sizeof(statistics.hostname), "web");
	full = broker_statistics_encode(&statistics);
	assert_int_equal(json_object_size(full), 6);
}

/* A page is one message. */
static void a_full_page_of_statistics_fits_into_a_message(void **state)
{
	const struct traffic_counters most = {INT64_MAX, INT64_MAX, INT64_MAX};
	struct broker_statistics largest = {
		.has_uid = true,
		.uid = UINT32_MAX,
		.has_kernel = true,
		.kernel = {most, most},
		.has_helper = true,
		.helper = {most, most},
	};
	cleanup_json json_t *object = NULL;
	cleanup_free char *text = NULL;

	memset(largest.network, 'n', sizeof(largest.network) - 1);
	memset(largest.interface_name, 'i', sizeof(largest.interface_name) - 1);
	memset(largest.hostname, 'h', sizeof(largest.hostname) - 1);
	object = broker_statistics_encode(&largest);
	text = json_dumps(object, JSON_COMPACT);
	assert_in_range(strlen(text), 500, 700);
}

static void assert_refused(int result, const char *reason, const char *word)
{
	assert_int_equal(result, -EINVAL);
	assert_non_null(strstr(reason, word));
}

static void calls_are_decoded_strictly(void **state)
{
	cleanup_json json_t *unknown = json_pack("{s:s}", "nework", "shared");
	cleanup_json json_t *number = json_pack("{s:i}", "after", 5);
	cleanup_json json_t *address = json_pack("{s:s}", "after", "192.168.64.9");
	cleanup_json json_t *interface = json_pack("{s:s}", "interfaceName", "vmtap00000001");
	cleanup_json json_t *name = json_pack("{s:s}", "network", "lab");
	struct describe_network_call describe;
	struct list_statistics_call statistics;
	struct serve_counters_call serve;
	struct list_leases_call leases;
	char reason[BROKER_REASON_SIZE];

	assert_refused(describe_network_decode(NULL, &describe, reason), reason, "missing");
	assert_refused(describe_network_decode(unknown, &describe, reason), reason, "nework");
	assert_int_equal(describe_network_decode(name, &describe, reason), 0);
	assert_string_equal(describe.network, "lab");
	assert_refused(list_leases_decode(number, &leases, reason), reason, "IPv4");
	assert_int_equal(list_leases_decode(NULL, &leases, reason), 0);
	assert_int_equal(leases.after.s_addr, 0);
	assert_int_equal(list_leases_decode(address, &leases, reason), 0);
	assert_int_equal(leases.after.s_addr, inet_addr("192.168.64.9"));
	assert_refused(list_statistics_decode(number, &statistics, reason), reason, "interface");
	assert_int_equal(list_statistics_decode(NULL, &statistics, reason), 0);
	assert_string_equal(statistics.after, "");
	assert_refused(serve_counters_decode(NULL, &serve, reason), reason, "missing");
	assert_int_equal(serve_counters_decode(interface, &serve, reason), 0);
	assert_string_equal(serve.interface_name, "vmtap00000001");
}

static void an_index_of_no_fd_is_refused(void **state)
{
	cleanup_json json_t *good = served_counters_encode(3);
	cleanup_json json_t *large = json_pack("{s:i}", "listener", 16);
	cleanup_json json_t *negative = json_pack("{s:i}", "listener", -1);
	uint32_t index = 0;

	assert_int_equal(served_counters_decode(good, &index), 0);
	assert_int_equal(index, 3);
	assert_int_equal(served_counters_decode(large, &index), -EBADMSG);
	assert_int_equal(served_counters_decode(negative, &index), -EBADMSG);
	assert_int_equal(served_counters_decode(NULL, &index), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(traffic_comes_through_as_it_was),
		cmocka_unit_test(the_largest_traffic_fits),
		cmocka_unit_test(what_a_hostile_helper_says_is_refused),
		cmocka_unit_test(what_is_not_known_is_left_out),
		cmocka_unit_test(a_full_page_of_statistics_fits_into_a_message),
		cmocka_unit_test(calls_are_decoded_strictly),
		cmocka_unit_test(an_index_of_no_fd_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
