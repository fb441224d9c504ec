#include "client/start-broker.h"

#include "base/cleanup.h"
#include "base/spawn.h"
#include "base/user-paths.h"
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define START_TIMEOUT_MS 10000
/* A broker that ended may have met another that is just starting: its socket is waited for this
 * long. */
#define OTHER_TIMEOUT_MS 3000
#define RETRY_MS         20
/* Room for what a broker says before its socket is there; the rest of its life it may say no more
 * there. */
#define LOG_SIZE 16384

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- finding the program --- */

static bool is_program(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

int start_broker_find_program(char program[PATH_MAX])
{
	/* The second is the build tree, where each program has a directory of its own. */
	static const char *const beside[] = {"/vmnet-broker", "/../broker/vmnet-broker"};
	static const char *const installed[] = {
		VMNET_LIBEXEC_DIR "/vmnet-broker",
		VMNET_BIN_DIR "/../sbin/vmnet-broker",
	};
	char directory[PATH_MAX];

	if (spawn_find_own_directory(directory, sizeof(directory)) == 0)
		for (size_t i = 0; i < array_length(beside); i++) {
			int length = snprintf(program, PATH_MAX, "%s%s", directory, beside[i]);

			if (length < PATH_MAX && is_program(program))
				return 0;
		}
	for (size_t i = 0; i < array_length(installed); i++) {
		snprintf(program, PATH_MAX, "%s", installed[i]);
		if (is_program(program))
			return 0;
	}
	return -ENOENT;
}

/* --- starting it --- */

/* A broker that was started: what it says, and whether it is still there. */
struct started {
	int log;
	int pidfd;
};

/*
 * The log is memory of a fixed size: a broker that outlives us can neither fill it beyond that nor
 * be killed by writing to it, as by writing to a pipe whose reader is gone.
 */
static int open_log(int *ret_log)
{
	cleanup_fd int log = memfd_create("vmnet-broker-start", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (log < 0 || ftruncate(log, LOG_SIZE) < 0 ||
		fcntl(log, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return -errno;
	*ret_log = take_fd(&log);
	return 0;
}

/* In the child: a grandchild in a session of its own goes on, so that nobody has to wait for the
 * broker. */
static int detach(void *context)
{
	int pid_writer = *(int *)context;
	pid_t pid;

	/* The broker is not a service of whoever supervises us. */
	unsetenv("NOTIFY_SOCKET");
	if (setsid() < 0 || chdir("/") < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		return 0;
	_exit(write(pid_writer, &pid, sizeof(pid)) == sizeof(pid) ? 0 : 1);
}

static int spawn_detached(const char *program, int null, int log, int pid_writer)
{
	/* An ordinary user's own. */
	static char rootless[] = "--rootless", exit_when_idle[] = "--exit-when-idle";
	char *arguments[] = {
		(char *)(uintptr_t)program, exit_when_idle, geteuid() == 0 ? NULL : rootless, NULL};
	const struct spawn_fd fds[] = {{null, 0}, {null, 1}, {log, 2}};
	const struct spawn_options options = {
		.path = program,
		.arguments = arguments,
		.fds = fds,
		.fds_count = array_length(fds),
		.prepare = detach,
		.context = &pid_writer,
	};
	pid_t pid;
	int error = spawn(&options, &pid, NULL);

	while (!error && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return error;
}

static int start(const char *program, struct started *ret_started)
{
	cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	cleanup_fd int log = -1;
	cleanup_fd int pid_reader = -1;
	cleanup_fd int pid_writer = -1;
	int ends[2];
	pid_t pid = 0;
	int error;

	if (null < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	pid_reader = ends[0];
	pid_writer = ends[1];
	error = open_log(&log);
	if (!error)
		error = spawn_detached(program, null, log, pid_writer);
	if (error)
		return error;
	if (read(pid_reader, &pid, sizeof(pid)) != sizeof(pid))
		return -ECHILD;
	/* Fails when the broker has ended already: then -1, and no different from one that ends
	 * later. */
	ret_started->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	ret_started->log = take_fd(&log);
	return 0;
}

/* Waits a moment, less if the broker ends meanwhile. Returns true once it has ended. */
static bool wait_a_moment(struct started *started)
{
	struct pollfd waiter = {.fd = started->pidfd, .events = POLLIN};

	if (poll(&waiter, 1, RETRY_MS) > 0)
		fd_close(take_fd(&started->pidfd));
	return started->pidfd < 0;
}

/* A socket is there before its broker has all that it needs, and a moment longer than a broker that
 * is killed, so it is asked for something. */
static vmnet_broker_t *connect_and_ask(char *reason, size_t reason_size)
{
	vmnet_broker_t *broker = vmnet_broker_connect(NULL, NULL, reason, reason_size);
	cleanup_free char *reply = NULL;

	if (!broker || vmnet_broker_call(broker, "ListNetworks", NULL, &reply) !=
			       VMNET_BROKER_CONNECTION_FAILURE)
		return broker;
	snprintf(reason, reason_size, "%s", vmnet_broker_reason(broker));
	vmnet_broker_close(broker);
	return NULL;
}

static vmnet_broker_t *wait_for_answer(struct started *started, char *reason, size_t reason_size)
{
	int64_t deadline = now_ms() + START_TIMEOUT_MS;
	bool has_ended = false;

	for (;;) {
		vmnet_broker_t *broker = connect_and_ask(reason, reason_size);

		if (broker || now_ms() >= deadline)
			return broker;
		if (wait_a_moment(started) && !has_ended) {
			has_ended = true;
			deadline = now_ms() + OTHER_TIMEOUT_MS;
		}
	}
}

/* --- what it said --- */

static void read_log(int log, char text[LOG_SIZE + 1])
{
	ssize_t size = pread(log, text, LOG_SIZE, 0);

	text[size > 0 ? size : 0] = '\0';
}

/* The first error that a broker said that did not come up is the cause of those behind it; where
 * there is none, the last line. */
static void read_reason(int log, char *reason, size_t reason_size)
{
	static const char level[] = "ERROR";
	char text[LOG_SIZE + 1];
	char *rest = text, *line;

	*reason = '\0';
	read_log(log, text);
	while ((line = strsep(&rest, "\n"))) {
		if (*line)
			snprintf(reason, reason_size, "%s", line);
		if (strncmp(line, level, strlen(level)) == 0)
			return;
	}
}

/* "LEVEL [tag] text" of those lines about what is in the way of its VMs. */
static void add_notes(int log, char *note)
{
	static const char tag[] = "[rootless] ";
	char text[LOG_SIZE + 1];
	char *rest = text, *line;

	read_log(log, text);
	while ((line = strsep(&rest, "\n"))) {
		const char *said = strstr(line, tag);
		size_t used = strlen(note);

		if (said && (*line == 'I' || *line == 'W'))
			snprintf(note + used, START_BROKER_NOTE_SIZE - used, "%s%s",
				used > 0 ? "\n" : "", said + strlen(tag));
	}
}

/* --- the system's broker, which is not for everybody --- */

static const char *group_name(gid_t gid)
{
	const struct group *group = getgrgid(gid);

	return group ? group->gr_name : "of its socket";
}

bool start_broker_explain_refusal(char *text, char *mend)
{
	const struct passwd *user = getpwuid(geteuid());
	const char *name = user ? user->pw_name : "USER";
	size_t size = START_BROKER_NOTE_SIZE / 2;
	struct stat status;

	if (stat(SYSTEM_BROKER_SOCKET, &status) < 0 || !S_ISSOCK(status.st_mode) ||
		access(SYSTEM_BROKER_SOCKET, W_OK) == 0)
		return false;
	if (status.st_gid == 0) {
		snprintf(text, size,
			"the system's broker is for root alone, as there is no group vmnet");
		snprintf(mend, size,
			"groupadd --system vmnet && usermod --append --groups vmnet %.64s, start "
			"the broker again, and log in again",
			name);
		return true;
	}
	snprintf(text, size, "the system's broker is for members of group %.64s, not for this user",
		group_name(status.st_gid));
	snprintf(mend, size, "usermod --append --groups %.64s %.64s, then log in again",
		group_name(status.st_gid), name);
	return true;
}

/* --- all of it --- */

static void explain_failure(
	const struct started *started, const char *program, const char *reason, char *error)
{
	char said[START_BROKER_ERROR_SIZE / 2];

	read_reason(started->log, said, sizeof(said));
	if (*said)
		snprintf(error, START_BROKER_ERROR_SIZE,
			"%.256s was started, but does not answer; it said: %s", program, said);
	else
		snprintf(error, START_BROKER_ERROR_SIZE,
			"%.256s was started, but does not answer (%s); run it by hand to see why: "
			"vmnet-broker%s",
			program, reason, geteuid() == 0 ? "" : " --rootless");
}

static vmnet_broker_t *start_and_connect(const char *tried, char *note, char *error)
{
	struct started started = {.log = -1, .pidfd = -1};
	char program[PATH_MAX];
	char reason[START_BROKER_ERROR_SIZE / 4] = "";
	vmnet_broker_t *broker;
	int result = start_broker_find_program(program);

	if (result < 0) {
		snprintf(error, START_BROKER_ERROR_SIZE,
			"no vmnet-broker answers (%s), and there is none to start beside this "
			"program or in %s; install it",
			tried, VMNET_LIBEXEC_DIR);
		return NULL;
	}
	result = start(program, &started);
	if (result < 0) {
		snprintf(error, START_BROKER_ERROR_SIZE,
			"no vmnet-broker answers (%s), and %.256s cannot be started: %s", tried,
			program, strerror(-result));
		return NULL;
	}
	broker = wait_for_answer(&started, reason, sizeof(reason));
	if (broker)
		add_notes(started.log, note);
	else
		explain_failure(&started, program, reason, error);
	fd_close(started.pidfd);
	fd_close(started.log);
	return broker;
}

static void note_refusal(char *note)
{
	char text[START_BROKER_NOTE_SIZE / 2], mend[START_BROKER_NOTE_SIZE / 2];

	if (start_broker_explain_refusal(text, mend))
		snprintf(note, START_BROKER_NOTE_SIZE,
			"%.300s: networks are this user's own, by vmnet-broker --rootless; to use "
			"the system's, as root: %.300s",
			text, mend);
}

vmnet_broker_t *start_broker(char *note, char *error)
{
	const char *named = secure_getenv("VMNET_BROKER_SOCKET");
	char tried[START_BROKER_ERROR_SIZE / 2];
	bool is_named = named && *named;
	vmnet_broker_status_t status = VMNET_BROKER_CONNECTION_FAILURE;
	vmnet_broker_t *broker = is_named
					 ? vmnet_broker_connect(NULL, &status, tried, sizeof(tried))
					 : connect_and_ask(tried, sizeof(tried));

	*note = '\0';
	if (broker)
		return broker;
	if (is_named && status == VMNET_BROKER_NOT_ALLOWED)
		snprintf(error, START_BROKER_ERROR_SIZE,
			"vmnet-broker's socket is not for this user (%s); join its group (usermod "
			"--append --groups vmnet USER, then log in again) or unset "
			"VMNET_BROKER_SOCKET",
			tried);
	else if (is_named)
		snprintf(error, START_BROKER_ERROR_SIZE,
			"no vmnet-broker answers where VMNET_BROKER_SOCKET says (%s); start it "
			"there or "
			"unset the variable",
			tried);
	else {
		note_refusal(note);
		broker = start_and_connect(tried, note, error);
	}
	return broker;
}
