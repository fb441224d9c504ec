#include "priv/dnsmasq.h"

#include "base/programs.h"
#include "base/spawn.h"
#include "priv/command.h"
#include "priv/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_PATIENCE_MS 2000

/* A child, or an empty place (pidfd -1). */
struct dnsmasq {
	char network[NETWORK_NAME_SIZE];
	pid_t pid;
	int pidfd;
	int log; /* read end: kept for the next front, without which nobody would hear it again */
};

struct dnsmasq_table {
	struct dnsmasq_options options;
	struct dnsmasq children[DNSMASQ_MAX];
};

int dnsmasq_table_new(const struct dnsmasq_options *options, struct dnsmasq_table **ret_table)
{
	struct dnsmasq_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->options = *options;
	for (size_t i = 0; i < DNSMASQ_MAX; i++)
		table->children[i].pidfd = table->children[i].log = -1;
	*ret_table = table;
	return 0;
}

static int send_signal(const struct dnsmasq *child, int number)
{
	return (int)syscall(SYS_pidfd_send_signal, child->pidfd, number, NULL, 0);
}

static void forget(struct dnsmasq *child)
{
	fd_close(take_fd(&child->pidfd));
	fd_close(take_fd(&child->log));
	child->network[0] = '\0';
	child->pid = 0;
}

/* True when it has ended; it is forgotten then. */
static bool reap(struct dnsmasq *child, int options)
{
	siginfo_t info = {0};
	int result;

	do {
		result = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | options);
	} while (result < 0 && errno == EINTR);
	if (result == 0 && info.si_pid == 0)
		return false;
	forget(child);
	return true;
}

static void wait_for_end(const struct dnsmasq *child, int patience_ms)
{
	struct pollfd end = {.fd = child->pidfd, .events = POLLIN};

	/* Signals are blocked and read elsewhere, so nothing interrupts this. */
	(void)poll(&end, 1, patience_ms);
}

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void stop(struct dnsmasq *child, int64_t deadline_ms)
{
	int64_t patience_ms = deadline_ms - now_ms();

	(void)send_signal(child, SIGTERM);
	wait_for_end(child, patience_ms > 0 ? (int)patience_ms : 0);
	if (reap(child, WNOHANG))
		return;
	(void)send_signal(child, SIGKILL);
	(void)reap(child, 0);
}

void dnsmasq_reap(struct dnsmasq_table *table)
{
	for (size_t i = 0; i < DNSMASQ_MAX; i++)
		if (table->children[i].pidfd >= 0)
			(void)reap(&table->children[i], WNOHANG);
}

void dnsmasq_table_free(struct dnsmasq_table *table)
{
	/* One for all: their user, the front's, may have stopped every one of them. */
	int64_t deadline_ms = now_ms() + STOP_PATIENCE_MS;

	if (!table)
		return;
	/* All are asked before one is waited for. */
	for (size_t i = 0; i < DNSMASQ_MAX; i++)
		if (table->children[i].pidfd >= 0)
			(void)send_signal(&table->children[i], SIGTERM);
	for (size_t i = 0; i < DNSMASQ_MAX; i++)
		if (table->children[i].pidfd >= 0)
			stop(&table->children[i], deadline_ms);
	free(table);
}

static struct dnsmasq *find(struct dnsmasq_table *table, const char *network)
{
	for (size_t i = 0; i < DNSMASQ_MAX; i++)
		if (table->children[i].pidfd >= 0 &&
			strcmp(table->children[i].network, network) == 0)
			return &table->children[i];
	return NULL;
}

static struct dnsmasq *find_empty(struct dnsmasq_table *table)
{
	for (size_t i = 0; i < DNSMASQ_MAX; i++)
		if (table->children[i].pidfd < 0)
			return &table->children[i];
	return NULL;
}

/* Only the reader's end is non-blocking for sure: dnsmasq sets its own as it likes. */
static int open_log(int *ret_reader, int *ret_writer)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	*ret_reader = ends[0];
	*ret_writer = ends[1];
	return 0;
}

static int run_program(const struct dnsmasq_options *options, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, const char *path, int log_writer,
	struct dnsmasq *ret_child)
{
	static char *const no_environment[] = {NULL};
	cleanup_command struct command command = {0};
	cleanup_fd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct spawn_fd fds[] = {
		{null, STDIN_FILENO}, {log_writer, STDOUT_FILENO}, {log_writer, STDERR_FILENO}};
	struct confine_user user = {
		.uid = options->uid,
		.gid = options->gid,
		.user_name = options->user_name,
		.parent = getpid(),
	};
	int error;

	if (null < 0)
		return -errno;
	error = command_build_dnsmasq(&command, path, facts, wanted, options);
	if (error)
		return error;
	return spawn(
		&(struct spawn_options){
			.path = path,
			.arguments = command.arguments,
			.environment = no_environment,
			.fds = fds,
			.fds_count = array_length(fds),
			.prepare = confine_prepare_dnsmasq,
			.context = &user,
		},
		&ret_child->pid, &ret_child->pidfd);
}

static int start_child(struct dnsmasq_table *table, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, struct dnsmasq *child)
{
	cleanup_fd int reader = -1;
	cleanup_fd int writer = -1;
	const char *path = program_find_dnsmasq();
	int error;

	if (!path)
		return -ENOENT;
	error = open_log(&reader, &writer);
	if (!error)
		error = run_program(&table->options, facts, wanted, path, writer, child);
	if (error)
		return error;
	(void)text_copy(child->network, sizeof(child->network), facts->network);
	child->log = take_fd(&reader);
	return 0;
}

static int add_copy(struct verb_outcome *outcome, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : outcome_add_fd(outcome, copy);
}

static int answer(const struct dnsmasq *child, struct verb_outcome *outcome)
{
	int error = add_copy(outcome, child->pidfd);

	if (!error)
		error = add_copy(outcome, child->log);
	outcome->value = (uint32_t)child->pid;
	return error;
}

static int fail_start(struct verb_outcome *outcome, int error, const char *network)
{
	if (error == -ENOENT)
		return outcome_fail(outcome, error,
			"dnsmasq is not installed: install it, as root: apt install dnsmasq-base");
	return outcome_fail(outcome, error, "starting dnsmasq of network \"%s\": %s", network,
		strerror(-error));
}

int dnsmasq_start(struct dnsmasq_table *table, const struct bridge_facts *facts,
	const struct verb_start_dnsmasq *wanted, struct verb_outcome *outcome)
{
	struct dnsmasq *child;
	int error;

	dnsmasq_reap(table);
	child = find(table, facts->network);
	if (child) {
		error = answer(child, outcome);
		return error ? error : VERB_RUNS_ALREADY;
	}
	child = find_empty(table);
	if (!child)
		return outcome_fail(
			outcome, -ENOSPC, "%u dnsmasq run, which is the limit", DNSMASQ_MAX);
	error = start_child(table, facts, wanted, child);
	if (!error)
		error = answer(child, outcome);
	return error ? fail_start(outcome, error, facts->network) : 0;
}

int dnsmasq_stop(struct dnsmasq_table *table, const char *network, struct verb_outcome *outcome)
{
	struct dnsmasq *child;

	dnsmasq_reap(table);
	child = find(table, network);
	if (!child)
		return outcome_fail(outcome, -ESRCH, "no dnsmasq runs for network \"%s\"", network);
	stop(child, now_ms() + STOP_PATIENCE_MS);
	return 0;
}
