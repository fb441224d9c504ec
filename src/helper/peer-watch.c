#include "helper/peer-watch.h"

#include "helper/port-dgram.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

/* A VM that took the socket over from its launcher has sent something within this time: its guest
 * is running, else the launcher would not have sent. */
#define RECHECK_SECONDS 1

enum watch_fd {
	WATCH_FD_SENDER,
	WATCH_FD_PROCESS,
	WATCH_FD_TIMER,
	WATCH_FD_COUNT,
};
static_assert(WATCH_FD_COUNT == PEER_WATCH_FDS, "one entry per fd");

static void set_timer(const struct peer_watch *watch, time_t seconds)
{
	const struct itimerspec time = {.it_value.tv_sec = seconds};

	timerfd_settime(watch->timer, 0, &time, NULL);
}

/* The one place where the state changes. */
static void enter(struct peer_watch *watch, enum peer_watch_state state)
{
	if (state != PEER_WATCH_ALIVE)
		fd_close(take_fd(&watch->pidfd));
	if (state == PEER_WATCH_RECHECKING && watch->state != PEER_WATCH_RECHECKING)
		set_timer(watch, RECHECK_SECONDS);
	if (state != PEER_WATCH_RECHECKING)
		set_timer(watch, 0);
	watch->state = state;
}

static void look_again(struct peer_watch *watch)
{
	enter(watch, PEER_WATCH_RECHECKING);
	if (port_dgram_find_sender(watch->port) < 0)
		enter(watch, PEER_WATCH_BLIND);
}

static void on_sender(struct peer_watch *watch)
{
	pid_t sender;
	eventfd_t ignored;
	int error;

	eventfd_read(port_dgram_sender_event(watch->port), &ignored);
	sender = port_dgram_sender(watch->port);
	if (sender <= 0) {
		enter(watch, PEER_WATCH_BLIND);
		return;
	}
	watch->pidfd = (int)syscall(SYS_pidfd_open, sender, 0);
	error = watch->pidfd < 0 ? errno : 0;
	if (error == ESRCH)
		look_again(watch);
	else
		enter(watch, error ? PEER_WATCH_BLIND : PEER_WATCH_ALIVE);
}

void peer_watch_init_off(struct peer_watch *watch)
{
	*watch = (struct peer_watch){.state = PEER_WATCH_BLIND, .pidfd = -1, .timer = -1};
}

int peer_watch_init(struct peer_watch *watch, struct port *port)
{
	*watch = (struct peer_watch){.port = port, .pidfd = -1, .timer = -1};
	watch->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (watch->timer < 0)
		return -errno;
	return port_dgram_find_sender(port);
}

void peer_watch_done(struct peer_watch *watch)
{
	fd_close(take_fd(&watch->pidfd));
	fd_close(take_fd(&watch->timer));
}

void peer_watch_fill(const struct peer_watch *watch, struct pollfd fds[PEER_WATCH_FDS])
{
	int watched[] = {
		[WATCH_FD_SENDER] = watch->port ? port_dgram_sender_event(watch->port) : -1,
		[WATCH_FD_PROCESS] = watch->pidfd,
		[WATCH_FD_TIMER] = watch->timer,
	};

	for (size_t i = 0; i < WATCH_FD_COUNT; i++)
		fds[i] = (struct pollfd){.fd = watched[i], .events = POLLIN};
}

enum peer_watch_state peer_watch_dispatch(
	struct peer_watch *watch, const struct pollfd fds[PEER_WATCH_FDS])
{
	if (fds[WATCH_FD_SENDER].revents)
		on_sender(watch);
	else if (fds[WATCH_FD_PROCESS].revents)
		look_again(watch);
	else if (fds[WATCH_FD_TIMER].revents)
		enter(watch, PEER_WATCH_GONE);
	return watch->state;
}
