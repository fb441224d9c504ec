/* MACs and ids that stay the same. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "broker/mac.h"
#include "priv/names.h"

#include <string.h>

#define INSTANCE 0x1234abcd

static struct uuid uuid_of(uint8_t last)
{
	struct uuid uuid = {{0x12, 0x34}};

	uuid.bytes[15] = last;
	return uuid;
}

static bool macs_are_equal(struct mac a, struct mac b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static bool uuids_are_equal(struct uuid a, struct uuid b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static void one_id_gives_one_mac(void **state)
{
	struct uuid one = uuid_of(1), other = uuid_of(2);

	assert_true(macs_are_equal(
		mac_from_interface_id(&one, INSTANCE), mac_from_interface_id(&one, INSTANCE)));
	assert_false(macs_are_equal(
		mac_from_interface_id(&one, INSTANCE), mac_from_interface_id(&other, INSTANCE)));
}

static void every_mac_is_one_a_vm_may_have(void **state)
{
	for (uint32_t i = 0; i < 100000; i++) {
		struct uuid id = uuid_of(0);
		struct mac mac;

		memcpy(id.bytes + 4, &i, sizeof(i));
		mac = mac_from_interface_id(&id, INSTANCE);
		assert_true(mac_is_unicast(mac));
		assert_int_equal(mac.bytes[0] & 2, 2);
		assert_false(mac_is_reserved(mac));
	}
}

static void a_hostname_stands_for_network_user_and_name(void **state)
{
	struct uuid id = interface_id_from_hostname("shared", 1000, "web", INSTANCE);

	assert_true(
		uuids_are_equal(id, interface_id_from_hostname("shared", 1000, "web", INSTANCE)));
	assert_false(
		uuids_are_equal(id, interface_id_from_hostname("host", 1000, "web", INSTANCE)));
	assert_false(
		uuids_are_equal(id, interface_id_from_hostname("shared", 1001, "web", INSTANCE)));
	assert_false(
		uuids_are_equal(id, interface_id_from_hostname("shared", 1000, "db", INSTANCE)));
}

static void ids_say_how_they_were_made(void **state)
{
	static const uint8_t random[UUID_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct uuid id = interface_id_from_random(random);

	assert_int_equal(id.bytes[6], 0x4f);
	assert_int_equal(id.bytes[8], 0xbf);
	assert_int_equal(id.bytes[15], 0xff);
	id = interface_id_from_hostname("shared", 0, "a", INSTANCE);
	assert_int_equal(id.bytes[6] >> 4, 8);
	assert_int_equal(id.bytes[8] >> 6, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_id_gives_one_mac),
		cmocka_unit_test(every_mac_is_one_a_vm_may_have),
		cmocka_unit_test(a_hostname_stands_for_network_user_and_name),
		cmocka_unit_test(ids_say_how_they_were_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
