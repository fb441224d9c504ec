/* Showing the same again and again, until the user ends it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Why a wait ended. */
enum watch_event {
	WATCH_TIME,    /* it is time to look again */
	WATCH_RESIZED, /* the terminal's size is another: what was shown is to be shown again */
};

/*
 * From now on ^C and SIGTERM end the program, quietly and with exit status 0: it is how a watch is
 * meant to end. A change of the terminal's size is kept for watch_wait().
 */
void watch_begin(void);

/* Waits for deadline_ms, of watch_now_ms(), or until the terminal is resized. */
enum watch_event watch_wait(int64_t deadline_ms);

/* A clock that never goes back, in milliseconds. */
int64_t watch_now_ms(void);

/* Makes room for the next picture: an empty screen on a terminal; elsewhere, behind the first one,
 * an empty line. */
void watch_clear(bool is_terminal, bool is_first);
