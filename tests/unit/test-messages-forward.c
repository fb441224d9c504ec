/* The words of forwards, and the messages about them. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/cleanup.h"
#include "wire/messages.h"

#include <errno.h>
#include <string.h>

static int make_spec(const char *listen, const char *target, struct forward_spec *ret_spec)
{
	forward_spec_init(ret_spec);
	if (forward_spec_set_listen(ret_spec, listen) < 0 ||
		forward_spec_set_target(ret_spec, target) < 0)
		return -EINVAL;
	return forward_spec_settle(ret_spec);
}

static void what_people_write_is_understood(void **state)
{
	static const struct {
		const char *listen, *target;
		const char *listen_text, *target_text;
	} cases[] = {
		{"8080", "web:80", "0.0.0.0:8080", "web:80"},
		{"65535", "web-1:65535", "0.0.0.0:65535", "web-1:65535"},
		{"1", "192.168.64.5:1", "0.0.0.0:1", "192.168.64.5:1"},
		{"127.0.0.1:8080", "1a:80", "127.0.0.1:8080", "1a:80"},
		{"0.0.0.0:8080", "web:80", "0.0.0.0:8080", "web:80"},
		{"8080", "[fd00::5]:80", "[::]:8080", "[fd00::5]:80"},
		{"[::]:8080", "web:80", "[::]:8080", "web:80"},
		{"[2001:DB8::1]:8080", "[fd00::5]:80", "[2001:db8::1]:8080", "[fd00::5]:80"},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		char listen[ENDPOINT_TEXT_SIZE], target[FORWARD_TARGET_SIZE];
		struct forward_spec spec, again;

		assert_int_equal(make_spec(cases[i].listen, cases[i].target, &spec), 0);
		endpoint_to_text(&spec.listen, listen);
		forward_target_to_text(&spec, target);
		assert_string_equal(listen, cases[i].listen_text);
		assert_string_equal(target, cases[i].target_text);
		/* What is recorded is what was meant. */
		assert_int_equal(make_spec(listen, target, &again), 0);
		assert_true(forward_specs_are_equal(&spec, &again));
	}
}

static void what_is_none_is_refused(void **state)
{
	static const char *const listens[] = {"", "0", "65536", "-1", " 80", "80 ", "x", ":80",
		"1.2.3:80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "::1:80", "[::1]", "[::1]80",
		"[::1:80", "[1.2.3.4]:80", "[]:80", "web:80", "1.2.3.4:80:90"};
	static const char *const targets[] = {"", "80", "web", "web:", ":80", "web:0", "web:65536",
		"we b:80", "-web:80", "web.shared:80", "1.2.3:80", "300.1.1.1:80", "123:80",
		"0.0.0.0:80", "[::]:80", "[web]:80", "fd00::5:80", "web:80:90"};
	struct forward_spec spec;

	forward_spec_init(&spec);
	for (size_t i = 0; i < array_length(listens); i++)
		if (forward_spec_set_listen(&spec, listens[i]) != -EINVAL)
			fail_msg("\"%s\" is nowhere to listen", listens[i]);
	for (size_t i = 0; i < array_length(targets); i++)
		if (forward_spec_set_target(&spec, targets[i]) != -EINVAL)
			fail_msg("\"%s\" is no target", targets[i]);
	assert_int_equal(forward_spec_set_protocol(&spec, "sctp"), -EINVAL);
	assert_int_equal(make_spec("127.0.0.1:1", "[fd00::5]:1", &spec), -EINVAL);
	assert_int_equal(make_spec("[::]:1", "192.168.64.5:1", &spec), -EINVAL);
}

static void names_of_63_letters_fit(void **state)
{
	char target[HOSTNAME_SIZE + 10], text[FORWARD_TARGET_SIZE];
	struct forward_spec spec;

	memset(target, 'a', HOSTNAME_SIZE - 1);
	strcpy(target + HOSTNAME_SIZE - 1, ":65535");
	assert_int_equal(make_spec("1", target, &spec), 0);
	forward_target_to_text(&spec, text);
	assert_string_equal(text, target);
	memset(target, 'a', HOSTNAME_SIZE);
	strcpy(target + HOSTNAME_SIZE, ":65535");
	assert_int_equal(make_spec("1", target, &spec), -EINVAL);
}

static void ports_overlap_where_a_packet_fits_both(void **state)
{
	static const struct {
		const char *a, *b;
		bool overlap;
	} cases[] = {
		{"0.0.0.0:80", "0.0.0.0:80", true},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"0.0.0.0:80", "0.0.0.0:81", false},
		{"0.0.0.0:80", "[::]:80", false},
		{"[::]:80", "[fd00::1]:80", true},
	};

	for (size_t i = 0; i < array_length(cases); i++) {
		struct forward_spec a, b;

		assert_int_equal(forward_spec_set_listen(&a, cases[i].a), 0);
		assert_int_equal(forward_spec_set_listen(&b, cases[i].b), 0);
		assert_int_equal(endpoints_overlap(&a.listen, &b.listen), cases[i].overlap);
		assert_int_equal(endpoints_overlap(&b.listen, &a.listen), cases[i].overlap);
	}
}

static json_t *load(const char *text)
{
	json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(value);
	return value;
}

static void calls_are_decoded(void **state)
{
	json_t *parameters =
		load("{\"network\":\"shared\",\"protocol\":\"udp\",\"listen\":\"8080\","
		     "\"target\":\"web:80\",\"pin\":true}");
	struct remove_forward_call removal;
	struct list_forwards_call list;
	struct forward_call call;
	char reason[BROKER_REASON_SIZE];

	assert_int_equal(forward_call_decode(parameters, &call, reason), 0);
	assert_string_equal(call.network, "shared");
	assert_int_equal(call.spec.protocol, IPPROTO_UDP);
	assert_int_equal(call.spec.listen.port, 8080);
	assert_string_equal(call.spec.hostname, "web");
	assert_int_equal(call.spec.target.port, 80);
	assert_true(call.pin);
	json_object_del(parameters, "protocol");
	json_object_del(parameters, "pin");
	assert_int_equal(forward_call_decode(parameters, &call, reason), 0);
	assert_int_equal(call.spec.protocol, IPPROTO_TCP);
	assert_false(call.pin);
	json_decref(parameters);
	parameters = load("{\"id\":7}");
	assert_int_equal(remove_forward_decode(parameters, &removal, reason), 0);
	assert_int_equal(removal.id, 7);
	json_decref(parameters);
	assert_int_equal(list_forwards_decode(NULL, &list, reason), 0);
	assert_int_equal(list.after, 0);
}

static void bad_calls_are_refused_with_a_reason(void **state)
{
	static const char *const forwards[] = {
		"{}",
		"{\"network\":\"shared\",\"listen\":\"8080\"}",
		"{\"network\":\"shared\",\"target\":\"web:80\"}",
		"{\"listen\":\"8080\",\"target\":\"web:80\"}",
		"{\"network\":\"shared\",\"listen\":8080,\"target\":\"web:80\"}",
		"{\"network\":\"shared\",\"listen\":\"8080\",\"target\":[]}",
		"{\"network\":\"../x\",\"listen\":\"8080\",\"target\":\"web:80\"}",
		"{\"network\":\"shared\",\"listen\":\"8080\",\"target\":\"web:80\",\"pin\":1}",
		"{\"network\":\"shared\",\"listen\":\"8080\",\"target\":\"web:80\",\"uid\":0}",
		"{\"network\":\"shared\",\"listen\":\"[::]:1\",\"target\":\"1.2.3.4:80\"}",
	};
	static const char *const ids[] = {"{}", "{\"id\":-1}", "{\"id\":4294967296}",
		"{\"id\":\"1\"}", "{\"id\":1.5}", "{\"id\":1,\"x\":1}"};
	char reason[BROKER_REASON_SIZE];

	for (size_t i = 0; i < array_length(forwards); i++) {
		struct forward_call call;
		json_t *parameters = load(forwards[i]);

		*reason = '\0';
		assert_int_equal(forward_call_decode(parameters, &call, reason), -EINVAL);
		assert_true(*reason);
		json_decref(parameters);
	}
	for (size_t i = 0; i < array_length(ids); i++) {
		struct remove_forward_call call;
		json_t *parameters = load(ids[i]);

		*reason = '\0';
		assert_int_equal(remove_forward_decode(parameters, &call, reason), -EINVAL);
		assert_true(*reason);
		json_decref(parameters);
	}
}

static void expect_text(json_t *value, const char *text)
{
	json_t *expected = load(text);

	assert_non_null(value);
	if (!json_equal(value, expected))
		fail_msg("%s is not %s", json_dumps(value, JSON_COMPACT), text);
	json_decref(expected);
	json_decref(value);
}

static void forwards_are_described(void **state)
{
	struct broker_forward forward = {
		.id = 3, .network = "shared", .origin = FORWARD_PINNED, .uid = 1000};

	assert_int_equal(make_spec("8080", "web:80", &forward.spec), 0);
	expect_text(broker_forward_encode(&forward),
		"{\"id\":3,\"network\":\"shared\",\"protocol\":\"tcp\",\"listen\":\"0.0.0.0:8080\","
		"\"target\":\"web:80\",\"origin\":\"pinned\",\"uid\":1000}");
	forward.is_active = true;
	forward.address = (struct endpoint){.port = 80, .address = {192, 168, 64, 2}};
	expect_text(broker_forward_encode(&forward),
		"{\"id\":3,\"network\":\"shared\",\"protocol\":\"tcp\",\"listen\":\"0.0.0.0:8080\","
		"\"target\":\"web:80\",\"address\":\"192.168.64.2:80\",\"origin\":\"pinned\","
		"\"uid\":1000}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_people_write_is_understood),
		cmocka_unit_test(what_is_none_is_refused),
		cmocka_unit_test(names_of_63_letters_fit),
		cmocka_unit_test(ports_overlap_where_a_packet_fits_both),
		cmocka_unit_test(calls_are_decoded),
		cmocka_unit_test(bad_calls_are_refused_with_a_reason),
		cmocka_unit_test(forwards_are_described),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
