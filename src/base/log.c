#include "base/log.h"

#include "base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What a reader that is merely slow gets, each line. */
#define PATIENCE_MS 100

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "ERROR",
	[LOG_LEVEL_WARN] = "WARN ",
	[LOG_LEVEL_INFO] = "INFO ",
	[LOG_LEVEL_DEBUG] = "DEBUG",
};
static_assert(array_length(level_names) == LOG_LEVEL_COUNT, "one name per level");

static bool show_debug;

void log_set_verbose(bool verbose)
{
	show_debug = verbose;
}

/* Terminals take U+0080 to U+009F, two bytes of UTF-8, for control characters too. */
static bool is_long_control(const char *text)
{
	return (unsigned char)text[0] == 0xc2 && ((unsigned char)text[1] & 0xe0) == 0x80;
}

static void hide_control_characters(char *text)
{
	char *end = text;

	for (; *text; text++) {
		bool is_long = is_long_control(text);

		*end++ = is_long || (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
		text += is_long;
	}
	*end = '\0';
}

/* A pipe that nobody reads any more must not keep its writer from ending. */
static bool can_write(void)
{
	struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&fd, 1, PATIENCE_MS) != 0;
}

void log_write(enum log_level level, const char *tag, const char *format, ...)
{
	int kept = errno;
	char text[1024];
	va_list arguments;

	if (level == LOG_LEVEL_DEBUG && !show_debug)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	hide_control_characters(text);
	if (can_write())
		dprintf(STDERR_FILENO, "%s [%s] %s\n", level_names[level], tag, text);
	errno = kept;
}
