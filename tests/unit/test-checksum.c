#include "helper/checksum.h"

#include "base/cleanup.h"
#include "offload-frames.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ALIGNMENTS 65

static uint8_t bytes[ALIGNMENTS + FRAME_SIZE_MAX];

static void fill_with_noise(void)
{
	uint32_t state = 1;

	for (size_t i = 0; i < sizeof(bytes); i++) {
		state = state * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(state >> 24);
	}
}

/* In memory order. */
static uint16_t sum_slowly(const uint8_t *start, size_t length)
{
	return htons(frame_sum_slowly(0, start, length));
}

/* Ends where the memory ends, so that the sanitizer sees a read beyond. */
static void expect_sum(const struct checksum_way *way, size_t alignment, size_t length)
{
	cleanup_free uint8_t *copy = malloc(alignment + length);

	assert_true(copy || alignment + length == 0);
	if (length > 0)
		memcpy(copy + alignment, bytes, length);
	assert_int_equal(
		checksum_fold(way->sum(copy + alignment, length)), sum_slowly(bytes, length));
}

static void test_every_way_sums_every_length_at_every_alignment(void **state)
{
	size_t count;
	const struct checksum_way *ways = checksum_ways(&count);

	fill_with_noise();
	for (size_t i = 0; i < count; i++) {
		for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
			for (size_t length = 1; length < 300; length++)
				expect_sum(&ways[i], alignment, length);
		}
		for (size_t length = 1400; length < 1520; length++)
			expect_sum(&ways[i], length % ALIGNMENTS, length);
		for (size_t length = FRAME_SIZE_MAX - 200; length <= FRAME_SIZE_MAX; length++)
			expect_sum(&ways[i], length % ALIGNMENTS, length);
	}
}

static void test_carries_are_not_lost(void **state)
{
	size_t count;
	const struct checksum_way *ways = checksum_ways(&count);

	memset(bytes, 0xff, sizeof(bytes));
	for (size_t i = 0; i < count; i++) {
		expect_sum(&ways[i], 0, FRAME_SIZE_MAX);
		expect_sum(&ways[i], 1, FRAME_SIZE_MAX - 1);
	}
	assert_int_equal(checksum_fold(UINT64_MAX), 0xffff);
	assert_int_equal(checksum_fold(0xffffffff00000001), 1);
	assert_int_equal(checksum_fold(0), 0);
}

static void test_the_portable_way_is_always_there(void **state)
{
	size_t count;
	const struct checksum_way *ways = checksum_ways(&count);

	assert_in_range(count, 1, 3);
	assert_string_equal(ways[count - 1].name, "portable");
}

/* RFC 1071, section 3. */
static void test_the_example_of_the_rfc(void **state)
{
	const uint8_t example[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	assert_int_equal(checksum_fold(checksum_add(0, example, sizeof(example))), htons(0xddf2));
	assert_int_equal(checksum_finish(checksum_add(0, example, sizeof(example))), htons(0x220d));
	assert_int_equal(
		checksum_fold(checksum_add_short(0, example, sizeof(example))), htons(0xddf2));
}

static void test_sums_add_up(void **state)
{
	fill_with_noise();
	for (size_t length = 0; length < 200; length++) {
		for (size_t cut = 0; cut <= length; cut += 2) {
			uint64_t sum = checksum_add_short(0, bytes, cut);

			sum = checksum_add(sum, bytes + cut, length - cut);
			assert_int_equal(checksum_fold(sum), sum_slowly(bytes, length));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way_sums_every_length_at_every_alignment),
		cmocka_unit_test(test_carries_are_not_lost),
		cmocka_unit_test(test_the_portable_way_is_always_there),
		cmocka_unit_test(test_the_example_of_the_rfc),
		cmocka_unit_test(test_sums_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
