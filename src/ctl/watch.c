#include "ctl/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CLEAR_SCREEN "\033[H\033[2J"

static volatile sig_atomic_t is_resized;

static void note_resize(int number)
{
	is_resized = 1;
}

static void end_quietly(int number)
{
	_exit(EXIT_SUCCESS);
}

void watch_begin(void)
{
	struct sigaction ending = {.sa_handler = end_quietly};
	struct sigaction resizing = {.sa_handler = note_resize};
	sigset_t resize;

	sigaction(SIGINT, &ending, NULL);
	sigaction(SIGTERM, &ending, NULL);
	/* It must interrupt nothing but the wait. */
	sigemptyset(&resize);
	sigaddset(&resize, SIGWINCH);
	sigprocmask(SIG_BLOCK, &resize, NULL);
	sigaction(SIGWINCH, &resizing, NULL);
}

int64_t watch_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

enum watch_event watch_wait(int64_t deadline_ms)
{
	int64_t left_ms = deadline_ms - watch_now_ms();
	sigset_t all;

	sigemptyset(&all);
	while (left_ms > 0 && !is_resized) {
		struct timespec patience = {left_ms / 1000, left_ms % 1000 * 1000000};

		ppoll(NULL, 0, &patience, &all);
		left_ms = deadline_ms - watch_now_ms();
	}
	if (!is_resized)
		return WATCH_TIME;
	is_resized = 0;
	return WATCH_RESIZED;
}

void watch_clear(bool is_terminal, bool is_first)
{
	if (is_terminal)
		fputs(CLEAR_SCREEN, stdout);
	else if (!is_first)
		putchar('\n');
}
