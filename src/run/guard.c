#include "run/guard.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define PROBE_INTERVAL_MS 20

void guard_init(struct guard *guard)
{
	*guard = (struct guard){.lifeline = -1};
}

/* Whoever waits for the end of the client's output must not wait for the guard as well. */
static void keep_only(int fd)
{
	int nothing = open("/dev/null", O_RDWR);

	for (int stdio = STDOUT_FILENO; stdio <= STDERR_FILENO; stdio++)
		dup2(nothing, stdio);
	if (fd > STDERR_FILENO + 1)
		close_range(STDERR_FILENO + 1, (unsigned int)fd - 1, 0);
	close_range((unsigned int)fd + 1, ~0U, 0);
}

/* What comes before the end is the path of a directory. */
static void wait_until_closed(int lifeline, char *directory)
{
	size_t length = 0;
	ssize_t size;
	char byte;

	do {
		size = read(lifeline, &byte, 1);
		if (size > 0 && length < SOCKET_DIRECTORY_PATH_SIZE - 1)
			directory[length++] = byte;
	} while (size > 0 || (size < 0 && errno == EINTR));
	directory[length] = '\0';
}

static void end_group(struct process_group *group, const char *directory)
{
	const struct timespec interval = {.tv_nsec = PROBE_INTERVAL_MS * 1000000L};

	kill(0, SIGTERM);
	kill(0, SIGCONT);
	for (int waited_ms = 0; waited_ms < PROCESS_GROUP_TERM_MS; waited_ms += PROBE_INTERVAL_MS) {
		if (process_group_signal(0, 0, 0) == 0)
			break;
		nanosleep(&interval, NULL);
	}
	socket_directory_remove(directory);
	process_group_leave(group);
	kill(0, SIGKILL);
}

static void run_guard(int lifeline, struct process_group group)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE];
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "vmnet-guard");
	keep_only(lifeline);
	wait_until_closed(lifeline, directory);
	end_group(&group, directory);
}

int guard_start(struct guard *guard, const struct process_group *group)
{
	cleanup_fd int reader = -1;
	cleanup_fd int writer = -1;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	reader = ends[0];
	writer = ends[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		fd_close(take_fd(&writer));
		run_guard(reader, *group);
		_exit(0);
	}
	guard->pid = pid;
	guard->lifeline = take_fd(&writer);
	return 0;
}

int guard_watch_directory(struct guard *guard, const char *directory)
{
	size_t length = strlen(directory);
	ssize_t written;

	if (text_copy(guard->directory, sizeof(guard->directory), directory) < 0)
		return -ENAMETOOLONG;
	written = write(guard->lifeline, directory, length);
	return written < 0 ? -errno : 0;
}

void guard_stop(struct guard *guard)
{
	socket_directory_remove(guard->directory);
	if (guard->pid > 0) {
		kill(guard->pid, SIGKILL);
		while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
			;
		guard->pid = 0;
	}
	fd_close(take_fd(&guard->lifeline));
}

void guard_note_reaped(struct guard *guard, pid_t pid)
{
	if (guard->pid == pid)
		guard->pid = 0;
}
