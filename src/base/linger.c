#include "base/linger.h"

#include "base/cleanup.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/time.h>

/* That it came is all: a close that waits gives up, and those after it do so until this returns. */
static void on_alarm(int number)
{
	(void)number;
}

static void catch_alarm(void)
{
	static bool caught;
	const struct sigaction action = {.sa_handler = on_alarm};
	sigset_t alarm_only;

	if (caught)
		return;
	sigemptyset(&alarm_only);
	sigaddset(&alarm_only, SIGALRM);
	(void)sigaction(SIGALRM, &action, NULL);
	(void)sigprocmask(SIG_UNBLOCK, &alarm_only, NULL);
	caught = true;
}

/* Again and again, because the first may come just before the wait. */
static void set_timer(int interval_ms)
{
	const struct timeval interval = {.tv_usec = interval_ms * 1000};
	const struct itimerval timer = {interval, interval};

	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

void linger_limit(void)
{
	catch_alarm();
	set_timer(LINGER_MS);
}

void linger_unlimit(void)
{
	set_timer(0);
}

void linger_close_fd(int fd)
{
	linger_limit();
	fd_close(fd);
	linger_unlimit();
}

void linger_close_fds(struct fd_list *fds)
{
	linger_limit();
	fd_list_done(fds);
	linger_unlimit();
}
