#include "helper/stats.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct direction_counters to_vm = {
	.packets = 1, .bytes = 1514, .drops = 3, .fast = 4, .slow = 5};
static const struct direction_counters to_host = {
	.packets = UINT64_C(1) << 62, .bytes = INT64_MAX, .drops = 8, .fast = 9, .slow = 10};

static void set_time_zone(const char *zone)
{
	setenv("TZ", zone, 1);
	tzset();
}

static json_t *stats_at(const struct timespec *time)
{
	char text[STATS_TEXT_SIZE];
	json_error_t error;
	json_t *stats;

	assert_int_equal(stats_to_text(time, &to_vm, &to_host, text), 0);
	assert_null(strchr(text, '\n'));
	stats = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	assert_non_null(stats);
	return stats;
}

static void assert_time(const char *zone, struct timespec time, const char *expected)
{
	json_t *stats;

	set_time_zone(zone);
	stats = stats_at(&time);
	assert_string_equal(json_string_value(json_object_get(stats, "time")), expected);
	json_decref(stats);
}

static void assert_counter(json_t *direction, const char *key, uint64_t expected)
{
	json_t *value = json_object_get(direction, key);

	assert_true(json_is_integer(value));
	assert_int_equal(json_integer_value(value), expected);
}

static void test_time_is_iso_8601(void **state)
{
	const struct timespec time = {.tv_sec = 1700000000, .tv_nsec = 7999999};

	assert_time("UTC0", time, "2023-11-14T22:13:20.007+00:00");
	assert_time("EAST-05:30", time, "2023-11-15T03:43:20.007+05:30");
	assert_time("WEST+03:30", time, "2023-11-14T18:43:20.007-03:30");
	assert_time(
		"UTC0", (struct timespec){.tv_nsec = 999999999}, "1970-01-01T00:00:00.999+00:00");
}

static void test_counters_are_whole_and_in_place(void **state)
{
	json_t *stats = stats_at(&(struct timespec){.tv_sec = 1700000000});
	json_t *host = json_object_get(stats, "host");
	json_t *vm = json_object_get(stats, "vm");

	assert_int_equal(json_object_size(stats), 3);
	assert_int_equal(json_object_size(host), 5);
	assert_int_equal(json_object_size(vm), 5);
	assert_counter(host, "packets", 1);
	assert_counter(host, "bytes", 1514);
	assert_counter(host, "drops", 3);
	assert_counter(host, "fast", 4);
	assert_counter(host, "slow", 5);
	assert_counter(vm, "packets", UINT64_C(1) << 62);
	assert_counter(vm, "bytes", INT64_MAX);
	assert_counter(vm, "drops", 8);
	assert_counter(vm, "fast", 9);
	assert_counter(vm, "slow", 10);
	json_decref(stats);
}

static void test_largest_counters_fit(void **state)
{
	const struct direction_counters full = {
		UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
	const struct timespec time = {.tv_sec = 1700000000};
	char text[STATS_TEXT_SIZE];

	set_time_zone("UTC0");
	assert_int_equal(stats_to_text(&time, &full, &full, text), 0);
	assert_string_equal(text + strlen(text) - 30, "\"slow\": 18446744073709551615}}");
}

static void test_time_without_a_date_is_refused(void **state)
{
	const struct timespec time = {.tv_sec = INT64_MAX};
	char text[STATS_TEXT_SIZE];

	assert_true(stats_to_text(&time, &to_vm, &to_host, text) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time_is_iso_8601),
		cmocka_unit_test(test_counters_are_whole_and_in_place),
		cmocka_unit_test(test_largest_counters_fit),
		cmocka_unit_test(test_time_without_a_date_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
