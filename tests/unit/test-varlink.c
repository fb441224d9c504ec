/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "wire/varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int make_input(void **state)
{
	struct varlink_input *input;

	if (varlink_input_new(&input) < 0)
		return -1;
	*state = input;
	return 0;
}

static int free_input(void **state)
{
	varlink_input_free(*state);
	return 0;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static struct fd_list make_fds(size_t count)
{
	struct fd_list list;

	fd_list_init(&list);
	for (; list.count < count; list.count++) {
		list.fds[list.count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(list.fds[list.count] >= 0);
	}
	return list;
}

static int feed(struct varlink_input *input, const char *bytes, size_t size)
{
	struct fd_list none;

	fd_list_init(&none);
	return varlink_input_feed(input, bytes, size, &none);
}

/* The next message must be there, have member "n" of this value and this many fds, which are
 * closed. */
static void expect_message(struct varlink_input *input, int number, size_t fds_count)
{
	json_t *message = NULL;
	struct fd_list fds;

	assert_int_equal(varlink_input_next(input, &message, &fds), 1);
	assert_int_equal(json_integer_value(json_object_get(message, "n")), number);
	assert_int_equal(fds.count, fds_count);
	for (size_t i = 0; i < fds_count; i++)
		assert_true(is_open(fds.fds[i]));
	fd_list_done(&fds);
	json_decref(message);
}

static void expect_none(struct varlink_input *input)
{
	json_t *message;
	struct fd_list fds;

	assert_int_equal(varlink_input_next(input, &message, &fds), 0);
}

static void whole_messages_come_out_in_order(void **state)
{
	static const char bytes[] = "{\"n\":1}\0{\"n\":2}\0{\"n\"";

	expect_none(*state);
	assert_false(varlink_input_is_partial(*state));
	assert_int_equal(feed(*state, bytes, sizeof(bytes) - 1), 0);
	expect_message(*state, 1, 0);
	expect_message(*state, 2, 0);
	expect_none(*state);
	assert_true(varlink_input_is_partial(*state));
	assert_int_equal(feed(*state, ":3}", 4), 0);
	assert_false(varlink_input_is_partial(*state));
	expect_message(*state, 3, 0);
	expect_none(*state);
}

static void every_split_gives_the_same_messages(void **state)
{
	static const char bytes[] = "{\"n\":1}\0{\"n\":22,\"text\":\"a\\u0001b\"}\0 {\"n\":3} ";

	for (size_t first = 0; first <= sizeof(bytes); first++)
		for (size_t second = first; second <= sizeof(bytes); second++) {
			assert_int_equal(feed(*state, bytes, first), 0);
			assert_int_equal(feed(*state, bytes + first, second - first), 0);
			assert_int_equal(feed(*state, bytes + second, sizeof(bytes) - second), 0);
			expect_message(*state, 1, 0);
			expect_message(*state, 22, 0);
			expect_message(*state, 3, 0);
			expect_none(*state);
			assert_false(varlink_input_is_partial(*state));
		}
}

static void fds_belong_to_the_message_of_the_last_byte(void **state)
{
	struct fd_list one = make_fds(1), two = make_fds(2), three = make_fds(3);

	/* The end of 1, all of 2, the beginning of 3: the fds are those of 3. */
	assert_int_equal(varlink_input_feed(*state, "{\"n\"", 4, &one), 0);
	assert_int_equal(varlink_input_feed(*state, ":1}\0{\"n\":2}\0{\"n", 15, &two), 0);
	assert_int_equal(one.count, 0);
	assert_int_equal(two.count, 0);
	expect_message(*state, 1, 1);
	expect_message(*state, 2, 0);
	expect_none(*state);
	/* More of the same message's; the fd of the byte that ended 3 would not be those of 4. */
	assert_int_equal(varlink_input_feed(*state, "\":3}\0", 5, &three), 0);
	assert_int_equal(feed(*state, "{\"n\":4}", 8), 0);
	expect_message(*state, 3, 5);
	expect_message(*state, 4, 0);
}

static void fds_of_several_waiting_messages_stay_apart(void **state)
{
	struct fd_list one = make_fds(1), two = make_fds(2), three = make_fds(3);

	assert_int_equal(varlink_input_feed(*state, "{\"n\":1}", 8, &one), 0);
	assert_int_equal(varlink_input_feed(*state, "{\"n\":2}", 8, &two), 0);
	assert_int_equal(feed(*state, "{\"n\":3}", 8), 0);
	expect_message(*state, 1, 1);
	assert_int_equal(varlink_input_feed(*state, "{\"n\":4}", 8, &three), 0);
	expect_message(*state, 2, 2);
	expect_message(*state, 3, 0);
	expect_message(*state, 4, 3);
}

static void too_many_fds_are_closed(void **state)
{
	struct fd_list most = make_fds(FD_PASS_MAX), more = make_fds(1), copy = more;

	assert_int_equal(varlink_input_feed(*state, "{", 1, &most), 0);
	assert_int_equal(varlink_input_feed(*state, "}", 2, &more), -EBADMSG);
	assert_int_equal(more.count, 0);
	assert_false(is_open(copy.fds[0]));
}

static void fds_without_a_byte_are_closed(void **state)
{
	struct fd_list fds = make_fds(1), copy = fds;

	assert_int_equal(varlink_input_feed(*state, "", 0, &fds), -EBADMSG);
	assert_false(is_open(copy.fds[0]));
	assert_int_equal(feed(*state, "", 0), 0);
}

static void fds_nobody_took_are_closed(void **state)
{
	struct fd_list waiting = make_fds(2), partial = make_fds(1);
	struct fd_list waiting_copy = waiting, partial_copy = partial;
	struct varlink_input *input;

	assert_int_equal(varlink_input_new(&input), 0);
	assert_int_equal(varlink_input_feed(input, "{}", 3, &waiting), 0);
	assert_int_equal(varlink_input_feed(input, "{", 1, &partial), 0);
	varlink_input_free(input);
	assert_false(is_open(waiting_copy.fds[0]));
	assert_false(is_open(waiting_copy.fds[1]));
	assert_false(is_open(partial_copy.fds[0]));
}

static void fds_of_a_bad_message_are_closed(void **state)
{
	struct fd_list fds = make_fds(1), copy = fds, out;
	json_t *message;

	assert_int_equal(varlink_input_feed(*state, "[]", 3, &fds), 0);
	assert_int_equal(varlink_input_next(*state, &message, &out), -EBADMSG);
	assert_false(is_open(copy.fds[0]));
}

static void what_is_no_object_is_refused(void **state)
{
	static const char *const texts[] = {"", " ", "[]", "1", "\"x\"", "null", "{", "{}x",
		"{} {}", "{\"a\":1,\"a\":2}", "{\"a\":\"\\u0000\"}", "{\"a\":\"\xff\"}", "{'a':1}",
		"{\"a\":99999999999999999999}"};

	for (size_t i = 0; i < array_length(texts); i++) {
		json_t *message;
		struct fd_list fds;

		assert_int_equal(feed(*state, texts[i], strlen(texts[i]) + 1), 0);
		assert_int_equal(varlink_input_next(*state, &message, &fds), -EBADMSG);
	}
}

/* An object with depth containers, itself included. */
static int next_of_depth(struct varlink_input *input, int depth, char open, char close)
{
	char text[128] = "{\"a\":";
	size_t length = strlen(text);
	json_t *message;
	struct fd_list fds;
	int result;

	for (int i = 1; i < depth; i++) {
		text[length++] = open;
		if (open == '{' && i + 1 < depth) {
			memcpy(text + length, "\"a\":", 4);
			length += 4;
		}
	}
	for (int i = 1; i < depth; i++)
		text[length++] = close;
	text[length++] = '}';
	assert_true(length < sizeof(text));
	assert_int_equal(feed(input, text, length + 1), 0);
	result = varlink_input_next(input, &message, &fds);
	if (result == 1)
		json_decref(message);
	return result;
}

static void nesting_has_a_limit(void **state)
{
	static char deep[VARLINK_MESSAGE_MAX];
	json_t *message;
	struct fd_list fds;

	assert_int_equal(next_of_depth(*state, VARLINK_DEPTH_MAX, '[', ']'), 1);
	assert_int_equal(next_of_depth(*state, VARLINK_DEPTH_MAX + 1, '[', ']'), -EBADMSG);
	assert_int_equal(next_of_depth(*state, VARLINK_DEPTH_MAX, '{', '}'), 1);
	assert_int_equal(next_of_depth(*state, VARLINK_DEPTH_MAX + 1, '{', '}'), -EBADMSG);
	memset(deep, '[', sizeof(deep) - 1);
	assert_int_equal(feed(*state, deep, sizeof(deep)), 0);
	assert_int_equal(varlink_input_next(*state, &message, &fds), -EBADMSG);
}

/* {"n":7,"pad":"xxx"} of exactly size bytes, the NUL included. */
static char *make_padded(size_t size)
{
	static const char head[] = "{\"n\":7,\"pad\":\"";
	char *text = malloc(size);

	assert_non_null(text);
	memset(text, 'x', size);
	memcpy(text, head, strlen(head));
	memcpy(text + size - 3, "\"}", 3);
	return text;
}

static void the_longest_message_passes_and_a_longer_one_does_not(void **state)
{
	char *longest = make_padded(VARLINK_MESSAGE_MAX);
	char *longer = make_padded(VARLINK_MESSAGE_MAX + 1);

	assert_int_equal(feed(*state, "{\"n\":6}", 8), 0);
	assert_int_equal(feed(*state, longest, VARLINK_MESSAGE_MAX), 0);
	expect_message(*state, 6, 0);
	expect_message(*state, 7, 0);
	assert_int_equal(feed(*state, longer, VARLINK_MESSAGE_MAX + 1), -EMSGSIZE);
	free(longest);
	free(longer);
}

static void a_message_without_end_is_refused_as_soon_as_it_is_too_long(void **state)
{
	size_t fed = 0;

	while (feed(*state, " ", 1) == 0)
		fed++;
	assert_int_equal(fed, VARLINK_MESSAGE_MAX - 1);
}

static void calls_are_decoded(void **state)
{
	json_t *message = json_pack("{s:s, s:{s:i}, s:b, s:b, s:s}", "method", "a.b.C",
		"parameters", "x", 1, "more", 1, "oneway", 0, "later", "unknown");
	struct varlink_call call;

	assert_int_equal(varlink_call_decode(message, &call), 0);
	assert_string_equal(call.method, "a.b.C");
	assert_int_equal(json_integer_value(json_object_get(call.parameters, "x")), 1);
	assert_true(call.more);
	assert_false(call.oneway);
	json_decref(message);
	message = json_pack("{s:s, s:n, s:b}", "method", "a.b.C", "parameters", "oneway", 1);
	assert_int_equal(varlink_call_decode(message, &call), 0);
	assert_null(call.parameters);
	assert_true(call.oneway);
	assert_false(call.more);
	json_decref(message);
}

static int decode_call_text(const char *text)
{
	json_t *message = json_loads(text, 0, NULL);
	struct varlink_call call;
	int result;

	assert_non_null(message);
	result = varlink_call_decode(message, &call);
	json_decref(message);
	return result;
}

static void what_is_no_call_is_refused(void **state)
{
	assert_int_equal(decode_call_text("{\"method\":\"a.B\"}"), 0);
	assert_int_equal(decode_call_text("{}"), -EBADMSG);
	assert_int_equal(decode_call_text("{\"method\":1}"), -EBADMSG);
	assert_int_equal(decode_call_text("{\"method\":\"a.B\",\"parameters\":[]}"), -EBADMSG);
	assert_int_equal(decode_call_text("{\"method\":\"a.B\",\"more\":1}"), -EBADMSG);
	assert_int_equal(decode_call_text("{\"method\":\"a.B\",\"oneway\":\"true\"}"), -EBADMSG);
}

static int decode_reply_text(const char *text, json_t **ret_message, struct varlink_reply *reply)
{
	*ret_message = json_loads(text, 0, NULL);
	assert_non_null(*ret_message);
	return varlink_reply_decode(*ret_message, reply);
}

static void replies_are_decoded(void **state)
{
	static const char *const bad[] = {
		"{\"error\":1}", "{\"error\":null}", "{\"parameters\":1}", "{\"continues\":0}"};
	struct varlink_reply reply;
	json_t *message;

	assert_int_equal(decode_reply_text(
				 "{\"parameters\":{\"x\":1},\"continues\":true}", &message, &reply),
		0);
	assert_null(reply.error);
	assert_true(reply.continues);
	assert_int_equal(json_object_size(reply.parameters), 1);
	json_decref(message);
	assert_int_equal(decode_reply_text("{\"error\":\"a.B\"}", &message, &reply), 0);
	assert_string_equal(reply.error, "a.B");
	assert_null(reply.parameters);
	assert_false(reply.continues);
	json_decref(message);
	for (size_t i = 0; i < array_length(bad); i++) {
		assert_int_equal(decode_reply_text(bad[i], &message, &reply), -EBADMSG);
		json_decref(message);
	}
}

static void expect_encoded(json_t *message, const char *text)
{
	char *bytes;
	size_t size;

	assert_non_null(message);
	assert_int_equal(varlink_encode(message, &bytes, &size), 0);
	assert_int_equal(size, strlen(text) + 1);
	assert_memory_equal(bytes, text, size);
	free(bytes);
	json_decref(message);
}

static void messages_are_made(void **state)
{
	expect_encoded(varlink_make_call("a.B", json_pack("{s:i}", "x", 1)),
		"{\"method\":\"a.B\",\"parameters\":{\"x\":1}}");
	expect_encoded(varlink_make_call("a.B", NULL), "{\"method\":\"a.B\"}");
	expect_encoded(
		varlink_make_reply(json_pack("{s:i}", "x", 1)), "{\"parameters\":{\"x\":1}}");
	expect_encoded(varlink_make_reply(NULL), "{\"parameters\":{}}");
	expect_encoded(varlink_make_error("a.E", json_pack("{s:i}", "x", 1)),
		"{\"error\":\"a.E\",\"parameters\":{\"x\":1}}");
	expect_encoded(varlink_make_error("a.E", NULL), "{\"error\":\"a.E\"}");
	/* parameters is taken over on failure, too: the leak checker watches. */
	assert_null(varlink_make_call("\xff", json_object()));
	assert_null(varlink_make_error("\xff", json_object()));
}

static void a_message_too_long_is_not_encoded(void **state)
{
	char *text = make_padded(VARLINK_MESSAGE_MAX);
	json_t *message = json_loads(text, 0, NULL);
	char *bytes;
	size_t size;

	assert_int_equal(varlink_encode(message, &bytes, &size), 0);
	assert_int_equal(size, VARLINK_MESSAGE_MAX);
	free(bytes);
	json_object_set_new(message, "n", json_integer(77));
	assert_int_equal(varlink_encode(message, &bytes, &size), -EMSGSIZE);
	json_decref(message);
	free(text);
}

#define input_test(function) cmocka_unit_test_setup_teardown(function, make_input, free_input)

int main(void)
{
	const struct CMUnitTest tests[] = {
		input_test(whole_messages_come_out_in_order),
		input_test(every_split_gives_the_same_messages),
		input_test(fds_belong_to_the_message_of_the_last_byte),
		input_test(fds_of_several_waiting_messages_stay_apart),
		input_test(too_many_fds_are_closed),
		input_test(fds_without_a_byte_are_closed),
		cmocka_unit_test(fds_nobody_took_are_closed),
		input_test(fds_of_a_bad_message_are_closed),
		input_test(what_is_no_object_is_refused),
		input_test(nesting_has_a_limit),
		input_test(the_longest_message_passes_and_a_longer_one_does_not),
		input_test(a_message_without_end_is_refused_as_soon_as_it_is_too_long),
		cmocka_unit_test(calls_are_decoded),
		cmocka_unit_test(what_is_no_call_is_refused),
		cmocka_unit_test(replies_are_decoded),
		cmocka_unit_test(messages_are_made),
		cmocka_unit_test(a_message_too_long_is_not_encoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
