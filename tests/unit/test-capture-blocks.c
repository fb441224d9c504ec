/* What a capture's last line counts, however the stream is cut into pieces. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "ctl/capture-blocks.h"

#include <errno.h>
#include <string.h>

/* A section, an interface, a packet of 1500 bytes of which 4 were kept, and statistics with 9
 * drops.
 */
static const uint32_t stream[] = {
	0x0a0d0d0a,
	28,
	0x1a2b3c4d,
	1,
	UINT32_MAX,
	UINT32_MAX,
	28, /* */
	1,
	20,
	1,
	65535,
	20, /* */
	6,
	36,
	0,
	1,
	2,
	4,
	1500,
	0x12345678,
	36, /* */
	5,
	76,
	0,
	1,
	2,
	0x00080002,
	1,
	1,
	0x00080003,
	1,
	1,
	0x00080004,
	50,
	0, /* */
	0x00080005,
	9,
	0,
	0,
	76,
};

static void assert_counted(const struct capture_blocks *blocks, unsigned int times)
{
	assert_int_equal(blocks->interfaces, times);
	assert_int_equal(blocks->packets, times);
	assert_int_equal(blocks->bytes, 1500 * times);
	assert_int_equal(blocks->dropped, 9 * times);
}

static void pieces_of_any_size_are_counted(void **state)
{
	const uint8_t *bytes = (const uint8_t *)stream;

	for (size_t piece = 1; piece <= sizeof(stream); piece++) {
		struct capture_blocks blocks = {0};

		for (int times = 0; times < 2; times++)
			for (size_t at = 0; at < sizeof(stream); at += piece) {
				size_t left = sizeof(stream) - at;

				assert_int_equal(capture_blocks_take(&blocks, bytes + at,
							 piece < left ? piece : left),
					0);
			}
		assert_counted(&blocks, 2);
	}
}

static void what_is_no_block_is_told(void **state)
{
	static const uint32_t bad[][2] = {
		{6, 8}, {6, 0}, {6, 37}, {6, UINT32_MAX}, {0x0a0d0d0a, (1u << 20) + 4}};

	for (size_t i = 0; i < array_length(bad); i++) {
		struct capture_blocks blocks = {0};

		assert_int_equal(
			capture_blocks_take(&blocks, (const uint8_t *)bad[i], 8), -EBADMSG);
		assert_counted(&blocks, 0);
	}
}

static void statistics_with_other_options_do_no_harm(void **state)
{
	/* An option that says to be longer than the block. */
	static const uint32_t odd[] = {5, 28, 0, 0, 0, 0xffff0005, 28};
	struct capture_blocks blocks = {0};

	assert_int_equal(capture_blocks_take(&blocks, (const uint8_t *)odd, sizeof(odd)), 0);
	assert_int_equal(blocks.dropped, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_of_any_size_are_counted),
		cmocka_unit_test(what_is_no_block_is_told),
		cmocka_unit_test(statistics_with_other_options_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
