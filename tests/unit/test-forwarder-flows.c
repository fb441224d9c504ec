/* The table of UDP flows: found by what they are, ended by age. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "forwarder/flows.h"

#include <stdlib.h>

#define FLOWS_MAX 64

static const struct listener listeners[2];

static struct flow_key make_key(size_t listener, uint16_t port)
{
	return (struct flow_key){
		.listener = &listeners[listener],
		.peer = {10, 0, 0, 1},
		.local = {192, 0, 2, 1},
		.port = port,
	};
}

static int make_flows(void **state)
{
	struct flows *flows = malloc(sizeof(*flows));

	*state = flows;
	return flows_init(flows, FLOWS_MAX, 42);
}

static int remove_flows(void **state)
{
	flows_done(*state);
	free(*state);
	return 0;
}

static void each_part_of_a_key_counts(void **state)
{
	struct flows *flows = *state;
	struct flow_key keys[6];

	for (size_t i = 0; i < 6; i++)
		keys[i] = make_key(0, 1000);
	keys[1].listener = &listeners[1];
	keys[2].peer[15] = 1;
	keys[3].local[0] = 1;
	keys[4].scope = 1;
	keys[5].port = 1001;
	for (size_t i = 0; i < 6; i++) {
		assert_null(flows_find(flows, &keys[i]));
		assert_non_null(flows_add(flows, &keys[i], 0));
	}
	for (size_t i = 0; i < 6; i++)
		assert_memory_equal(&flows_find(flows, &keys[i])->key, &keys[i], sizeof(*keys));
	assert_int_equal(flows->count, 6);
}

static void a_full_table_has_room_when_the_oldest_goes(void **state)
{
	struct flows *flows = *state;
	struct flow_key first = make_key(0, 0), second = make_key(0, 1), more = make_key(1, 0);

	for (uint16_t i = 0; i < FLOWS_MAX; i++) {
		struct flow_key key = make_key(0, i);
		struct flow *flow = flows_add(flows, &key, i);

		assert_non_null(flow);
		assert_int_equal(flow->fd, -1);
	}
	assert_null(flows_add(flows, &more, FLOWS_MAX));
	flows_use(flows, flows_find(flows, &first), FLOWS_MAX);
	assert_ptr_equal(flows->oldest, flows_find(flows, &second));
	flows_remove(flows, flows->oldest);
	assert_null(flows_find(flows, &second));
	assert_non_null(flows_add(flows, &more, FLOWS_MAX));
	assert_non_null(flows_find(flows, &first));
	assert_non_null(flows_find(flows, &more));
}

/* Walks the ages from both ends. */
static void expect_sound(const struct flows *flows)
{
	const struct flow *flow = flows->oldest, *last = NULL;
	size_t count = 0;

	for (; flow; last = flow, flow = flow->younger, count++) {
		assert_ptr_equal(flow->older, last);
		assert_true(!last || last->used_ms <= flow->used_ms);
		assert_ptr_equal(flows_find(flows, &flow->key), flow);
	}
	assert_ptr_equal(flows->youngest, last);
	assert_int_equal(flows->count, count);
}

static void it_stays_sound_whatever_is_done(void **state)
{
	struct flows *flows = *state;
	unsigned int seed = 1;

	for (uint64_t now_ms = 0; now_ms < 20000; now_ms++) {
		struct flow_key key = make_key(0, (uint16_t)(rand_r(&seed) % (2 * FLOWS_MAX)));
		struct flow *flow = flows_find(flows, &key);

		if (!flow && !flows_add(flows, &key, now_ms))
			flows_remove(flows, flows->oldest);
		else if (flow && rand_r(&seed) % 2)
			flows_use(flows, flow, now_ms);
		else if (flow)
			flows_remove(flows, flow);
		if (now_ms % 100 == 0)
			expect_sound(flows);
	}
	while (flows->oldest)
		flows_remove(flows, flows->oldest);
	expect_sound(flows);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			each_part_of_a_key_counts, make_flows, remove_flows),
		cmocka_unit_test_setup_teardown(
			a_full_table_has_room_when_the_oldest_goes, make_flows, remove_flows),
		cmocka_unit_test_setup_teardown(
			it_stays_sound_whatever_is_done, make_flows, remove_flows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
