#include "base/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A line that blocks ends the test with SIGALRM. */
#define DEADLINE_SECONDS 20

struct fixture {
	int kept;
	int reader;
};

static void redirect(struct fixture *fixture)
{
	int ends[2];

	fixture->kept = dup(STDERR_FILENO);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	close(ends[1]);
	fixture->reader = ends[0];
}

static void restore(struct fixture *fixture)
{
	dup2(fixture->kept, STDERR_FILENO);
	close(fixture->kept);
	close(fixture->reader);
}

static void test_line_has_level_tag_and_harmless_text(void **state)
{
	static const char expected[] = "WARN  [main] one?ERROR two ?31m \xc3\xa4\n";
	char text[sizeof(expected)] = "";
	struct fixture fixture;

	redirect(&fixture);
	log_warn("main", "one\nERROR %s",
		"two \xc2\x9b"
		"31m \xc3\xa4");
	assert_int_equal(read(fixture.reader, text, sizeof(text)), sizeof(expected) - 1);
	restore(&fixture);
	assert_string_equal(text, expected);
}

static void test_reader_that_stopped_reading_holds_nobody_up(void **state)
{
	const char page[4096] = {0};
	struct fixture fixture;

	redirect(&fixture);
	fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
	while (write(STDERR_FILENO, page, sizeof(page)) > 0)
		;
	fcntl(STDERR_FILENO, F_SETFL, 0);
	alarm(DEADLINE_SECONDS);
	log_error("main", "nobody reads this");
	alarm(0);
	restore(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line_has_level_tag_and_harmless_text),
		cmocka_unit_test(test_reader_that_stopped_reading_holds_nobody_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
