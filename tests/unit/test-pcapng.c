/* The blocks of a capture, byte for byte, as the format's specification has them. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "priv/pcapng.h"

#include <string.h>

static uint32_t word(const uint8_t *bytes, size_t place)
{
	uint32_t value;

	memcpy(&value, bytes + place, sizeof(value));
	return value;
}

static uint16_t half(const uint8_t *bytes, size_t place)
{
	uint16_t value;

	memcpy(&value, bytes + place, sizeof(value));
	return value;
}

/* What every block is: whole words, its length at both ends. */
static void assert_block(const uint8_t *block, size_t size, uint32_t type)
{
	assert_true(size >= 12 && size % 4 == 0);
	assert_int_equal(word(block, 0), type);
	assert_int_equal(word(block, 4), size);
	assert_int_equal(word(block, size - 4), size);
}

/* The place of an option's value, from where the options begin; 0: it is not there. */
static size_t find_option(
	const uint8_t *block, size_t size, size_t place, uint16_t code, size_t *ret_length)
{
	while (place < size - 4) {
		*ret_length = half(block, place + 2);
		if (half(block, place) == code)
			return place + 4;
		/* The last one is the last thing in front of the length. */
		if (half(block, place) == 0)
			assert_int_equal(place + 4, size - 4);
		place += 4 + (*ret_length + 3) / 4 * 4;
	}
	assert_int_equal(place, size - 4);
	return 0;
}

static void a_section_says_its_byte_order_and_no_length(void **state)
{
	uint8_t block[PCAPNG_BLOCK_MAX];
	size_t size = pcapng_write_section(block, sizeof(block), "vmnet");
	size_t length = 0, place = 0;

	assert_block(block, size, 0x0a0d0d0a);
	assert_int_equal(word(block, 8), 0x1a2b3c4d);
	assert_int_equal(half(block, 12), 1);
	assert_int_equal(half(block, 14), 0);
	assert_int_equal(word(block, 16), UINT32_MAX);
	assert_int_equal(word(block, 20), UINT32_MAX);
	place = find_option(block, size, 24, 4, &length);
	assert_int_equal(length, 5);
	assert_memory_equal(block + place, "vmnet\0\0\0", 8);
}

static void an_interface_has_name_comment_and_nanoseconds(void **state)
{
	const struct pcapng_interface interface = {
		.name = "vmtap00000001", .comment = "web 10.0.0.2", .snaplen = 262144};
	uint8_t block[PCAPNG_BLOCK_MAX];
	size_t size = pcapng_write_interface(block, sizeof(block), &interface);
	size_t length = 0, place = 0;

	assert_block(block, size, 1);
	assert_int_equal(half(block, 8), 1);
	assert_int_equal(half(block, 10), 0);
	assert_int_equal(word(block, 12), 262144);
	place = find_option(block, size, 16, 2, &length);
	assert_int_equal(length, 13);
	assert_memory_equal(block + place, "vmtap00000001\0\0\0", 16);
	place = find_option(block, size, 16, 9, &length);
	assert_true(length == 1 && block[place] == 9);
	place = find_option(block, size, 16, 1, &length);
	assert_true(length == 12 && memcmp(block + place, "web 10.0.0.2", 12) == 0);
}

static void texts_are_left_out_or_cut(void **state)
{
	char endless[4 * PCAPNG_COMMENT_MAX];
	struct pcapng_interface interface = {.name = "x", .comment = NULL};
	uint8_t block[PCAPNG_BLOCK_MAX];
	size_t length, size = pcapng_write_interface(block, sizeof(block), &interface);

	assert_int_equal(find_option(block, size, 16, 1, &length), 0);
	interface.comment = "";
	size = pcapng_write_interface(block, sizeof(block), &interface);
	assert_int_equal(find_option(block, size, 16, 1, &length), 0);
	memset(endless, 'x', sizeof(endless));
	interface.name = interface.comment = endless;
	size = pcapng_write_interface(block, sizeof(block), &interface);
	assert_block(block, size, 1);
	assert_true(find_option(block, size, 16, 1, &length) > 0);
	assert_int_equal(length, PCAPNG_COMMENT_MAX);
}

static void statistics_have_times_and_counts(void **state)
{
	const struct pcapng_statistics statistics = {
		.interface = 3,
		.start_ns = UINT64_C(0x1122334455667788),
		.end_ns = UINT64_C(0x1122334499aabbcc),
		.received = UINT64_C(0x100000001),
		.dropped = 7,
	};
	uint8_t block[PCAPNG_BLOCK_MAX];
	size_t size = pcapng_write_statistics(block, sizeof(block), &statistics);
	size_t length = 0, place = 0;
	uint64_t count;

	assert_block(block, size, 5);
	assert_int_equal(word(block, 8), 3);
	assert_int_equal(word(block, 12), 0x11223344);
	assert_int_equal(word(block, 16), 0x99aabbcc);
	place = find_option(block, size, 20, 2, &length);
	assert_int_equal(length, 8);
	assert_int_equal(word(block, place), 0x11223344);
	assert_int_equal(word(block, place + 4), 0x55667788);
	assert_int_equal(word(block, find_option(block, size, 20, 3, &length) + 4), 0x99aabbcc);
	memcpy(&count, block + find_option(block, size, 20, 4, &length), sizeof(count));
	assert_true(length == 8 && count == UINT64_C(0x100000001));
	memcpy(&count, block + find_option(block, size, 20, 5, &length), sizeof(count));
	assert_true(length == 8 && count == 7);
}

static void blocks_fit_or_are_none(void **state)
{
	const struct pcapng_interface interface = {.name = "vmtap00000001", .comment = "web"};
	const struct pcapng_statistics statistics = {.interface = 1};
	uint8_t block[PCAPNG_BLOCK_MAX];
	size_t whole[] = {
		pcapng_write_section(block, sizeof(block), "vmnet"),
		pcapng_write_interface(block, sizeof(block), &interface),
		pcapng_write_statistics(block, sizeof(block), &statistics),
	};

	for (size_t size = 0; size < sizeof(block); size++) {
		/* Of just that size, so that the sanitizer sees a byte too many. */
		cleanup_free uint8_t *exact = malloc(size + 1);
		size_t wrote;

		assert_non_null(exact);
		exact[size] = 0xee;
		wrote = pcapng_write_section(exact, size, "vmnet");
		assert_int_equal(wrote, size < whole[0] ? 0 : whole[0]);
		wrote = pcapng_write_interface(exact, size, &interface);
		assert_int_equal(wrote, size < whole[1] ? 0 : whole[1]);
		wrote = pcapng_write_statistics(exact, size, &statistics);
		assert_int_equal(wrote, size < whole[2] ? 0 : whole[2]);
		assert_int_equal(exact[size], 0xee);
	}
}

static void a_packet_is_wrapped_where_it_lies(void **state)
{
	static const char *const comments[] = {NULL, "checksum not filled in yet",
		"a comment that has more bytes than there is room for in any block of a packet, so "
		"that it has to be cut at the place where that begins, and nowhere else, at all"};

	for (uint32_t captured = 0; captured < 70; captured++)
		for (size_t i = 0; i < array_length(comments); i++) {
			/* Exactly the room that is promised. */
			cleanup_free uint8_t *room =
				malloc(PCAPNG_PACKET_HEAD + captured + PCAPNG_PACKET_TAIL_MAX);
			uint8_t *data = room + PCAPNG_PACKET_HEAD;
			const struct pcapng_packet packet = {
				.interface = 2,
				.time_ns = UINT64_C(0x1122334455667788),
				.captured = captured,
				.original = captured + 1000,
				.direction = i == 0 ? PCAPNG_DIRECTION_UNKNOWN : PCAPNG_OUTBOUND,
				.comment = comments[i],
			};
			size_t length, options = PCAPNG_PACKET_HEAD + (captured + 3) / 4 * 4;
			size_t size, place;

			assert_non_null(room);
			for (uint32_t byte = 0; byte < captured; byte++)
				data[byte] = (uint8_t)(byte + 1);
			size = pcapng_wrap_packet(data, &packet);
			assert_block(room, size, 6);
			assert_int_equal(word(room, 8), 2);
			assert_int_equal(word(room, 12), 0x11223344);
			assert_int_equal(word(room, 16), 0x55667788);
			assert_int_equal(word(room, 20), captured);
			assert_int_equal(word(room, 24), captured + 1000);
			for (uint32_t byte = 0; byte < captured; byte++)
				assert_int_equal(data[byte], byte + 1);
			place = find_option(room, size, options, 2, &length);
			assert_int_equal(place > 0, i > 0);
			if (place > 0)
				assert_int_equal(word(room, place), 2);
			place = find_option(room, size, options, 1, &length);
			assert_int_equal(place > 0, comments[i] != NULL);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_section_says_its_byte_order_and_no_length),
		cmocka_unit_test(an_interface_has_name_comment_and_nanoseconds),
		cmocka_unit_test(texts_are_left_out_or_cut),
		cmocka_unit_test(statistics_have_times_and_counts),
		cmocka_unit_test(blocks_fit_or_are_none),
		cmocka_unit_test(a_packet_is_wrapped_where_it_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
