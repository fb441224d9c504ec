/*
 * Lines on stderr: "LEVEL [tag] text", the form the original programs print and tools parse.
 *
 * Thread rules: every function may be called from any thread; one call is one write(), so lines
 * never mix. A line that stderr has no room for within a tenth of a second is lost.
 */
#pragma once

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_COUNT,
};

/* Shows DEBUG lines as well. Call before other threads start. */
void log_set_verbose(bool verbose);

/* Writes one line; bytes that could forge another line (control characters) are shown as '?'. */
void log_write(enum log_level level, const char *tag, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(tag, ...) log_write(LOG_LEVEL_ERROR, tag, __VA_ARGS__)
#define log_warn(tag, ...)  log_write(LOG_LEVEL_WARN, tag, __VA_ARGS__)
#define log_info(tag, ...)  log_write(LOG_LEVEL_INFO, tag, __VA_ARGS__)
#define log_debug(tag, ...) log_write(LOG_LEVEL_DEBUG, tag, __VA_ARGS__)
