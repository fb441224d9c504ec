#include "forwarder/loop.h"

#include "base/cleanup.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

#define EVENTS_MAX 256

int loop_init(struct loop *loop)
{
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll < 0 ? -errno : 0;
}

void loop_done(struct loop *loop)
{
	fd_close(loop->epoll);
}

int loop_add(struct loop *loop, int fd, uint32_t events, struct watch *watch)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, int fd)
{
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static uint64_t read_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int loop_turn(struct loop *loop, int timeout_ms)
{
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(loop->epoll, events, EVENTS_MAX, timeout_ms);

	if (count < 0 && errno != EINTR)
		return -errno;
	loop->now_ms = read_clock_ms();
	for (int i = 0; i < count; i++) {
		struct watch *watch = events[i].data.ptr;

		watch->handle(watch, events[i].events);
	}
	return 0;
}
