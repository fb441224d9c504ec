#include "run/process-group.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define STAT_SIZE 512

static void close_directory(DIR *directory)
{
	closedir(directory);
}
DEFINE_CLEANUP(DIR, close_directory)

/* tcsetpgrp(3) from the background stops the caller's whole group unless SIGTTOU is blocked. */
static int set_foreground(pid_t group)
{
	sigset_t terminal_output;
	sigset_t previous;
	int result;

	sigemptyset(&terminal_output);
	sigaddset(&terminal_output, SIGTTOU);
	sigprocmask(SIG_BLOCK, &terminal_output, &previous);
	result = tcsetpgrp(STDIN_FILENO, group) < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &previous, NULL);
	return result;
}

int process_group_enter(struct process_group *ret_group)
{
	pid_t old = getpgrp();
	pid_t foreground = tcgetpgrp(STDIN_FILENO);

	*ret_group = (struct process_group){0};
	if (old == getpid())
		return 0;
	if (setpgid(0, 0) < 0)
		return -errno;
	if (foreground > 0)
		ret_group->previous = old;
	if (foreground == old)
		(void)set_foreground(getpid());
	return 0;
}

/* Only members of the shell's job are continued with it, so this process is one meanwhile. */
void process_group_suspend(const struct process_group *group)
{
	bool moved = group->previous && setpgid(0, group->previous) == 0;
	sigset_t suspending;
	sigset_t blocked;

	if (moved && tcgetpgrp(STDIN_FILENO) == getpid())
		(void)set_foreground(group->previous);
	kill(moved ? 0 : getpid(), SIGTSTP);
	sigemptyset(&suspending);
	sigaddset(&suspending, SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &suspending, &blocked);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	if (!moved)
		return;
	setpgid(0, 0);
	if (tcgetpgrp(STDIN_FILENO) == group->previous)
		(void)set_foreground(getpid());
	kill(0, SIGCONT);
}

void process_group_leave(struct process_group *group)
{
	if (group->previous && tcgetpgrp(STDIN_FILENO) == getpgrp())
		(void)set_foreground(group->previous);
	group->previous = 0;
}

struct process {
	pid_t parent;
	pid_t group;
	char state;
};

/* proc(5), stat: "PID (NAME) STATE PPID PGRP ..."; NAME may hold anything, parentheses too. */
static int read_process(int proc, const char *pid, struct process *ret_process)
{
	char text[STAT_SIZE];
	char path[32];
	cleanup_fd int fd = -1;
	const char *behind_name;
	ssize_t size;

	snprintf(path, sizeof(path), "%.20s/stat", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size = read(fd, text, sizeof(text) - 1);
	if (size < 0)
		return -errno;
	text[size] = '\0';
	behind_name = strrchr(text, ')');
	if (!behind_name || sscanf(behind_name + 1, " %c %d %d", &ret_process->state,
				    &ret_process->parent, &ret_process->group) != 3)
		return -EINVAL;
	return 0;
}

int process_group_signal(pid_t parent, pid_t except, int signal)
{
	cleanup_with(close_directory) DIR *proc = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	if (!proc)
		return -errno;
	while ((entry = readdir(proc))) {
		struct process process;
		uint32_t pid;

		if (text_to_uint32(entry->d_name, 1, INT32_MAX, &pid) < 0)
			continue;
		if ((pid_t)pid == getpid() || (pid_t)pid == except)
			continue;
		if (read_process(dirfd(proc), entry->d_name, &process) < 0)
			continue;
		if (process.group != getpgrp() || (parent && process.parent != parent))
			continue;
		if (!parent && process.state == 'Z')
			continue;
		count++;
		if (signal)
			kill((pid_t)pid, signal);
	}
	return count;
}
