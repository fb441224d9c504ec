#include "helper/loop.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "helper/port-tap.h"
#include "helper/stats.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* A macvtap link that goes wakes nobody who reads from it (drivers/net/tap.c). */
#define INTERFACE_INTERVAL_S 1

static enum outcome take_signal(int signals)
{
	struct signalfd_siginfo signal;

	if (read(signals, &signal, sizeof(signal)) != sizeof(signal))
		return OUTCOME_GO_ON;
	log_info("main", "stopped by signal %u", signal.ssi_signo);
	return OUTCOME_STOP;
}

enum outcome loop_wait_for(int signals, int fd, short events)
{
	struct pollfd fds[] = {
		{.fd = signals, .events = POLLIN},
		{.fd = fd, .events = events},
	};
	enum outcome outcome = OUTCOME_GO_ON;

	do {
		poll(fds, array_length(fds), -1);
		if (fds[0].revents)
			outcome = take_signal(signals);
	} while (outcome == OUTCOME_GO_ON && !fds[1].revents);
	return outcome;
}

/* Returns a timer, or negative errno. */
static int start_timer(uint32_t interval_seconds)
{
	const struct timespec interval = {.tv_sec = interval_seconds};
	const struct itimerspec time = {.it_value = interval, .it_interval = interval};
	cleanup_fd int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (timer < 0 || timerfd_settime(timer, 0, &time, NULL) < 0)
		return -errno;
	return take_fd(&timer);
}

static void count(const struct loop *loop, struct direction_counters counters[DIRECTION_COUNT])
{
	for (enum direction direction = 0; direction < DIRECTION_COUNT; direction++)
		cable_count(loop->cable, direction, &counters[direction]);
	counters_add(&counters[DIRECTION_VM_TO_HOST], loop->strangers);
}

static void print_stats(const struct loop *loop, int timer)
{
	struct direction_counters counters[DIRECTION_COUNT];
	char text[STATS_TEXT_SIZE];
	struct timespec now;
	uint64_t ignored;

	if (read(timer, &ignored, sizeof(ignored)) < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	count(loop, counters);
	if (stats_to_text(&now, &counters[DIRECTION_HOST_TO_VM], &counters[DIRECTION_VM_TO_HOST],
		    text) == 0)
		log_info("stats", "%s", text);
}

/* Answers one who asks. Its socket has room for this much, or it gets nothing. */
static void tell_counters(struct loop *loop)
{
	cleanup_fd int asker =
		accept4(loop->counters_listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct direction_counters counters[DIRECTION_COUNT];
	cleanup_free char *text = NULL;

	/* Otherwise one who cannot be accepted would wake the loop for ever. */
	if (asker < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		loop->counters_listener = -1;
	if (asker < 0)
		return;
	count(loop, counters);
	text = stats_to_traffic(&counters[DIRECTION_HOST_TO_VM], &counters[DIRECTION_VM_TO_HOST]);
	if (text && write(asker, text, strlen(text)) < 0)
		log_debug("stats", "who asked for counters did not wait: %s", strerror(errno));
}

static enum outcome judge_end(const struct loop *loop)
{
	enum outcome outcome = OUTCOME_GO_ON;

	for (enum direction direction = 0; direction < DIRECTION_COUNT; direction++) {
		int result = cable_result(loop->cable, direction);

		if (result == -ECONNRESET) {
			log_info(direction_name(direction), "the VM closed its socket");
			return OUTCOME_STOP;
		}
		if (result == -EBADFD)
			log_error(direction_name(direction), "interface %s was deleted",
				loop->interface_name);
		else if (result == -EBADMSG)
			log_error(direction_name(direction),
				"the VM sent a length that no frame has; it must send each frame "
				"behind its length, four bytes in network order");
		else if (result < 0)
			log_error(
				direction_name(direction), "cannot forward: %s", strerror(-result));
		if (result < 0)
			outcome = OUTCOME_FAILED;
	}
	return outcome;
}

static enum outcome judge_cable(struct loop *loop, const struct pollfd *fds)
{
	char reason[CABLE_REASON_SIZE];
	enum cable_news news = cable_dispatch(loop->cable, fds, reason);

	/* What a guest can bring about again and again is said aloud once. */
	if (news == CABLE_TROUBLE && !loop->has_told_trouble)
		log_warn("main", "%s", reason);
	else if (*reason)
		log_debug("main", "%s", reason);
	loop->has_told_trouble = loop->has_told_trouble || news == CABLE_TROUBLE;
	return news == CABLE_ENDED ? judge_end(loop) : OUTCOME_GO_ON;
}

static enum outcome judge_watch(struct loop *loop, const struct pollfd *fds)
{
	enum peer_watch_state before = loop->watch->state;
	enum peer_watch_state state = peer_watch_dispatch(loop->watch, fds);

	if (state == before)
		return OUTCOME_GO_ON;
	if (state == PEER_WATCH_GONE)
		log_info("main", "the VM's process has ended");
	if (state == PEER_WATCH_BLIND)
		log_debug("main", "the VM's process cannot be watched: it is not visible here");
	return state == PEER_WATCH_GONE ? OUTCOME_STOP : OUTCOME_GO_ON;
}

static enum outcome judge_interface(const struct loop *loop, int timer)
{
	uint64_t ignored;

	if (read(timer, &ignored, sizeof(ignored)) < 0 || port_tap_is_there(loop->interface_fd))
		return OUTCOME_GO_ON;
	log_error("main", "interface %s was deleted", loop->interface_name);
	return OUTCOME_FAILED;
}

enum wait_fd {
	WAIT_FD_SIGNALS,
	WAIT_FD_STATS,
	WAIT_FD_INTERFACE,
	WAIT_FD_COUNTERS,
	WAIT_FD_CABLE,
	WAIT_FD_WATCH = WAIT_FD_CABLE + CABLE_FDS,
	WAIT_FD_COUNT = WAIT_FD_WATCH + PEER_WATCH_FDS,
};

static enum outcome wait_for_end(struct loop *loop, int stats_timer, int interface_timer)
{
	enum outcome outcome = OUTCOME_GO_ON;

	while (outcome == OUTCOME_GO_ON) {
		struct pollfd fds[WAIT_FD_COUNT] = {
			[WAIT_FD_SIGNALS] = {.fd = loop->signals, .events = POLLIN},
			[WAIT_FD_STATS] = {.fd = stats_timer, .events = POLLIN},
			[WAIT_FD_INTERFACE] = {.fd = interface_timer, .events = POLLIN},
			[WAIT_FD_COUNTERS] = {.fd = loop->counters_listener, .events = POLLIN},
		};

		cable_fill(loop->cable, &fds[WAIT_FD_CABLE]);
		peer_watch_fill(loop->watch, &fds[WAIT_FD_WATCH]);
		poll(fds, array_length(fds), -1);
		if (fds[WAIT_FD_STATS].revents)
			print_stats(loop, stats_timer);
		if (fds[WAIT_FD_COUNTERS].revents)
			tell_counters(loop);
		if (fds[WAIT_FD_SIGNALS].revents)
			outcome = take_signal(loop->signals);
		if (outcome == OUTCOME_GO_ON && fds[WAIT_FD_INTERFACE].revents)
			outcome = judge_interface(loop, interface_timer);
		if (outcome == OUTCOME_GO_ON)
			outcome = judge_watch(loop, &fds[WAIT_FD_WATCH]);
		if (outcome == OUTCOME_GO_ON)
			outcome = judge_cable(loop, &fds[WAIT_FD_CABLE]);
	}
	return outcome;
}

enum outcome loop_run(struct loop *loop, uint32_t stats_interval_seconds)
{
	cleanup_fd int stats_timer = -1;
	cleanup_fd int interface_timer = -1;

	if (stats_interval_seconds > 0)
		stats_timer = start_timer(stats_interval_seconds);
	if (loop->interface_fd >= 0)
		interface_timer = start_timer(INTERFACE_INTERVAL_S);
	if ((stats_interval_seconds > 0 && stats_timer < 0) ||
		(loop->interface_fd >= 0 && interface_timer < 0)) {
		log_error("main", "cannot start a timer: %s",
			strerror(stats_timer < -1 ? -stats_timer : -interface_timer));
		return OUTCOME_FAILED;
	}
	return wait_for_end(loop, stats_timer, interface_timer);
}
