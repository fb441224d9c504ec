#include "run/supervisor.h"

#include "base/cleanup.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

#define RESCAN_INTERVAL_MS 50

int64_t supervisor_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

int supervisor_exit_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool is_ignored(int signal_number)
{
	struct sigaction action;

	return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/*
 * Blocked signals are queued even where they were ignored (kernel/signal.c, sig_ignored()), so INT
 * of a script's "&" stops us too: no terminal sends it there, as we are in a group of our own. Only
 * nohup's wish is kept.
 */
static int take_signals(bool ignores_hangup)
{
	static const int stopping[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU};
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	for (size_t i = 0; i < array_length(stopping); i++)
		if (stopping[i] != SIGHUP || !ignores_hangup)
			sigaddset(&mask, stopping[i]);
	if (sigprocmask(SIG_SETMASK, &mask, NULL) < 0)
		return -errno;
	/* An inherited SIG_IGN would make the kernel reap our children before we see them. */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int supervisor_start(struct supervisor *ret_supervisor)
{
	struct supervisor supervisor = {.ignores_hangup = is_ignored(SIGHUP)};
	cleanup_fd int signals = -1;
	int result;

	guard_init(&supervisor.guard);
	signals = take_signals(supervisor.ignores_hangup);
	if (signals < 0)
		return signals;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1L) < 0)
		return -errno;
	result = process_group_enter(&supervisor.group);
	if (result < 0)
		return result;
	result = guard_start(&supervisor.guard, &supervisor.group);
	if (result < 0) {
		process_group_leave(&supervisor.group);
		return result;
	}
	supervisor.signals = take_fd(&signals);
	*ret_supervisor = supervisor;
	return 0;
}

static int keep_hangup_ignored(void *context)
{
	const struct supervisor *supervisor = context;

	if (supervisor->ignores_hangup)
		signal(SIGHUP, SIG_IGN);
	return 0;
}

int supervisor_run(
	struct supervisor *supervisor, struct child *child, const struct spawn_options *options)
{
	struct spawn_options prepared = *options;
	pid_t pid;
	int result;

	prepared.prepare = keep_hangup_ignored;
	prepared.context = supervisor;
	result = spawn(&prepared, &pid, NULL);
	if (result < 0)
		return result;
	*child = (struct child){.pid = pid, .running = true};
	return 0;
}

static void note_signal(struct supervisor *supervisor, int signal_number)
{
	switch (signal_number) {
	case SIGCHLD:
		break;
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
		process_group_suspend(&supervisor->group);
		break;
	default:
		if (!supervisor->stop_signal)
			supervisor->stop_signal = signal_number;
	}
}

static void read_signals(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;

	while (read(supervisor->signals, &info, sizeof(info)) == sizeof(info))
		note_signal(supervisor, (int)info.ssi_signo);
}

static void note_end(struct child *child, pid_t pid, int status)
{
	if (!child->running || child->pid != pid)
		return;
	child->running = false;
	child->end_is_news = true;
	child->status = status;
}

static void reap(struct supervisor *supervisor)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		note_end(&supervisor->helper, pid, status);
		note_end(&supervisor->command, pid, status);
		guard_note_reaped(&supervisor->guard, pid);
	}
}

static bool take_news(struct child *child)
{
	bool news = child->end_is_news;

	child->end_is_news = false;
	return news;
}

/* Returns whether fd has one of the events. */
static bool poll_once(struct supervisor *supervisor, int fd, short events, int64_t deadline_ms)
{
	struct pollfd polled[] = {
		{.fd = supervisor->signals, .events = POLLIN},
		{.fd = fd, .events = events},
	};
	int64_t left_ms = -1;

	if (deadline_ms >= 0)
		left_ms = deadline_ms - supervisor_now_ms();
	if (deadline_ms >= 0 && left_ms < 0)
		left_ms = 0;
	if (left_ms > INT_MAX)
		left_ms = INT_MAX;
	return poll(polled, array_length(polled), (int)left_ms) > 0 && polled[1].revents;
}

enum supervisor_event supervisor_wait(struct supervisor *supervisor, int fd, int64_t deadline_ms)
{
	bool readable = false;
	bool timed_out = false;

	for (;;) {
		read_signals(supervisor);
		reap(supervisor);
		if (supervisor->stop_signal)
			return SUPERVISOR_STOPPED;
		if (take_news(&supervisor->command))
			return SUPERVISOR_COMMAND_ENDED;
		if (take_news(&supervisor->helper))
			return SUPERVISOR_HELPER_ENDED;
		if (readable)
			return SUPERVISOR_READABLE;
		if (timed_out)
			return SUPERVISOR_TIMED_OUT;
		readable = poll_once(supervisor, fd, POLLIN, deadline_ms);
		timed_out = deadline_ms >= 0 && supervisor_now_ms() >= deadline_ms;
	}
}

static bool has_news(struct supervisor *supervisor)
{
	read_signals(supervisor);
	reap(supervisor);
	return supervisor->stop_signal || supervisor->helper.end_is_news ||
	       supervisor->command.end_is_news;
}

int supervisor_write(struct supervisor *supervisor, int fd, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		ssize_t written;

		if (has_news(supervisor))
			return -EINTR;
		if (!poll_once(supervisor, fd, POLLOUT, -1))
			continue;
		written = write(fd, text, left);
		if (written < 0 && errno != EAGAIN)
			return -errno;
		if (written > 0) {
			text += written;
			left -= (size_t)written;
		}
	}
	return 0;
}

/* Children of ours in our group: whoever is deeper comes to us when its parent ends. */
static int signal_children(const struct supervisor *supervisor, int signal_number)
{
	return process_group_signal(getpid(), supervisor->guard.pid, signal_number);
}

/* Returns how many are left when the time is over. */
static int wait_until_gone(struct supervisor *supervisor, int64_t duration_ms, int signal_number)
{
	int64_t end_ms = supervisor_now_ms() + duration_ms;
	int left;

	for (;;) {
		read_signals(supervisor);
		reap(supervisor);
		left = signal_children(supervisor, signal_number);
		if (left <= 0 || supervisor_now_ms() >= end_ms)
			return left;
		(void)poll_once(supervisor, -1, 0, supervisor_now_ms() + RESCAN_INTERVAL_MS);
	}
}

/* The whole group is only signalled when it must be: in a shell's pipeline others are in it as
 * well. */
static void terminate(struct supervisor *supervisor)
{
	int left;

	reap(supervisor);
	left = signal_children(supervisor, 0);
	if (left == 0)
		return;
	if (left == 1 && supervisor->helper.running) {
		kill(supervisor->helper.pid, SIGTERM);
		return;
	}
	kill(0, SIGTERM);
	kill(0, SIGCONT);
}

int supervisor_finish(struct supervisor *supervisor)
{
	int left;

	terminate(supervisor);
	left = wait_until_gone(supervisor, PROCESS_GROUP_TERM_MS, 0);
	if (left > 0)
		left = wait_until_gone(supervisor, SUPERVISOR_KILL_MS, SIGKILL);
	guard_stop(&supervisor->guard);
	process_group_leave(&supervisor->group);
	fd_close(take_fd(&supervisor->signals));
	return left;
}
