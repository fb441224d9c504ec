#include "base/spawn.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

/* With every signal held back, so that no handler of ours runs in the child. */
static pid_t fork_quietly(void)
{
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid != 0) {
		int error = errno;

		pthread_sigmask(SIG_SETMASK, &before, NULL);
		errno = error;
	}
	return pid;
}

/* A signal that came since the fork finds the default disposition. */
static void reset_signals(void)
{
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Two passes, because one entry's target may be another's source. Returns the error pipe's new
 * number. */
static int arrange_fds(const struct spawn_options *options, int error_pipe)
{
	int moved[SPAWN_FDS_MAX];
	int highest_target = STDERR_FILENO;

	for (size_t i = 0; i < options->fds_count; i++)
		if (options->fds[i].target > highest_target)
			highest_target = options->fds[i].target;
	error_pipe = fcntl(error_pipe, F_DUPFD_CLOEXEC, highest_target + 1);
	if (error_pipe < 0)
		return -errno;
	for (size_t i = 0; i < options->fds_count; i++) {
		moved[i] = fcntl(options->fds[i].source, F_DUPFD_CLOEXEC, highest_target + 1);
		if (moved[i] < 0)
			return -errno;
	}
	if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return -errno;
	for (size_t i = 0; i < options->fds_count; i++)
		if (dup2(moved[i], options->fds[i].target) < 0)
			return -errno;
	return error_pipe;
}

static int run_child(const struct spawn_options *options, int *error_pipe)
{
	int result = arrange_fds(options, *error_pipe);

	if (result < 0)
		return result;
	*error_pipe = result;
	reset_signals();
	result = options->prepare ? options->prepare(options->context) : 0;
	if (result < 0)
		return result;
	execvpe(options->path, options->arguments,
		options->environment ? options->environment : environ);
	return -errno;
}

static int read_child_error(int error_pipe)
{
	int child_error;
	ssize_t size;

	do {
		size = read(error_pipe, &child_error, sizeof(child_error));
	} while (size < 0 && errno == EINTR);
	return size == sizeof(child_error) ? child_error : 0;
}

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int spawn(const struct spawn_options *options, pid_t *ret_pid, int *ret_pidfd)
{
	cleanup_fd int error_reader = -1;
	cleanup_fd int error_writer = -1;
	cleanup_fd int pidfd = -1;
	int ends[2];
	int error, pidfd_error;
	pid_t pid;

	if (options->fds_count > SPAWN_FDS_MAX)
		return -EINVAL;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	error_reader = ends[0];
	error_writer = ends[1];
	pid = fork_quietly();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		error = run_child(options, &error_writer);
		_exit(write(error_writer, &error, sizeof(error)) == sizeof(error) ? 127 : 126);
	}
	fd_close(take_fd(&error_writer));
	/* Not yet waited for, so the number still means our child, alive or not. */
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	pidfd_error = pidfd < 0 ? -errno : 0;
	error = read_child_error(error_reader);
	if (!error && ret_pidfd && pidfd_error) {
		kill(pid, SIGKILL);
		error = pidfd_error;
	}
	if (error) {
		reap(pid);
		return error;
	}
	if (ret_pidfd)
		*ret_pidfd = take_fd(&pidfd);
	*ret_pid = pid;
	return 0;
}

int spawn_find_own_directory(char *directory, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", directory, size - 1);
	char *slash;

	if (length < 0)
		return -errno;
	directory[length] = '\0';
	slash = strrchr(directory, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	return 0;
}

bool spawn_own_program_was_replaced(void)
{
	static const char suffix[] = " (deleted)"; /* what the kernel adds, proc(5) */
	char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
	struct stat running, installed;
	char *found;

	if (length < 0)
		return false;
	path[length] = '\0';
	found = strstr(path, suffix);
	if (found && strcmp(found, suffix) == 0)
		*found = '\0';
	return stat("/proc/self/exe", &running) == 0 && stat(path, &installed) == 0 &&
	       (running.st_dev != installed.st_dev || running.st_ino != installed.st_ino);
}
