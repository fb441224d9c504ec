#include "rootless/supervisor.h"

#include "base/log.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "rootless/pasta.h"
#include "rootless/sockets.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <time.h>

#define TAG                  "rootless"
#define YOUNG_US             (UINT64_C(5) * 1000000) /* a child that dies before this dies again */
#define RESTART_DELAY_US     (UINT64_C(100) * 1000)
#define RESTART_DELAY_MAX_US (UINT64_C(5) * 1000000)
#define STOP_PATIENCE_US     (UINT64_C(12) * 1000000) /* the front's own is 10 s */
#define TIMER_ACCURACY_US    1000
#define LINE_SIZE            256
/* Where they find theirs. */
#define CHILD_SOCKET_FD 3
#define CHILD_LISTEN_FD 4

/* Started in this order, so that whom a child connects to is there. */
enum child_kind {
	CHILD_PRIV,
	CHILD_FORWARDER,
	CHILD_PASTA,
	CHILD_FRONT,
	CHILD_COUNT,
};

enum supervisor_state {
	SUPERVISOR_SERVING,  /* children that die are started again */
	SUPERVISOR_STOPPING, /* the front was told to end: its end, or the timer, is ours */
	SUPERVISOR_ENDED,    /* the loop is about to return */
};

struct child {
	struct supervisor *supervisor;
	enum child_kind kind;
	pid_t pid; /* 0: none runs; the timer starts one */
	int pidfd;
	bool has_lived;            /* it was there for longer than a child that cannot start */
	uint64_t started_us;       /* when */
	uint64_t restart_delay_us; /* 0: the next one at once */
	sd_event_source *end;
	sd_event_source *timer;
};

struct supervisor {
	const struct supervisor_options *options;
	enum supervisor_state state;
	struct child children[CHILD_COUNT];
	int priv_listener, forwarder_listener;
	int pasta_log;              /* read end */
	char pasta_line[LINE_SIZE]; /* its last one */
	sd_event *event;
	sd_event_source *pasta_source;
	sd_event_source *patience;
	sd_event_source *pause; /* the end of its process */
};

/* --- starting each --- */

struct preparation {
	struct namespaces namespaces;
	bool enters;
	pid_t parent;
};

/* Signals of our terminal are for us: told at once, priv would be gone before the front is done.
 * PDEATHSIG last: entering a user namespace takes it back (prctl(2)). */
static int prepare(void *context)
{
	struct preparation *preparation = context;
	int error;

	if (setsid() < 0)
		return -errno;
	error = preparation->enters ? namespaces_enter(&preparation->namespaces) : 0;
	if (error)
		return error;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	return getppid() == preparation->parent ? 0 : -ECHILD;
}

static int spawn_own(struct child *child, char *const *arguments, bool enters,
	const struct spawn_fd *fds, size_t fds_count)
{
	struct preparation preparation = {
		.namespaces = *child->supervisor->options->namespaces,
		.enters = enters,
		.parent = getpid(),
	};

	return spawn(
		&(struct spawn_options){
			.path = "/proc/self/exe",
			.arguments = arguments,
			.fds = fds,
			.fds_count = fds_count,
			.prepare = prepare,
			.context = &preparation,
		},
		&child->pid, &child->pidfd);
}

static int start_priv(struct child *child)
{
	const struct spawn_fd fd = {child->supervisor->priv_listener, CHILD_SOCKET_FD};

	return spawn_own(child, child->supervisor->options->priv_arguments, true, &fd, 1);
}

static int start_forwarder(struct child *child)
{
	const struct spawn_fd fd = {child->supervisor->forwarder_listener, CHILD_SOCKET_FD};

	return spawn_own(child, child->supervisor->options->forwarder_arguments, true, &fd, 1);
}

static int start_front(struct child *child)
{
	struct supervisor *supervisor = child->supervisor;
	cleanup_fd int verbs = -1;
	int error = sockets_connect(supervisor->options->runtime_directory, "priv", &verbs);
	const struct spawn_fd fds[] = {
		{verbs, CHILD_SOCKET_FD}, {supervisor->options->listen_fd, CHILD_LISTEN_FD}};

	return error ? error
		     : spawn_own(child, supervisor->options->front_arguments, false, fds,
			       array_length(fds));
}

static void take_pasta_line(struct supervisor *supervisor, const char *line)
{
	/* What it tells a log that is not there. */
	if (!*line || strstr(line, "to syslog"))
		return;
	log_debug("pasta", "%s", line);
	snprintf(supervisor->pasta_line, sizeof(supervisor->pasta_line), "%s", line);
}

static int handle_pasta_log(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct supervisor *supervisor = userdata;
	char text[4096];
	ssize_t size = read(fd, text, sizeof(text) - 1);
	char *rest = text;
	const char *line;

	if (size <= 0) {
		if (size == 0)
			supervisor->pasta_source = sd_event_source_disable_unref(source);
		return 0;
	}
	text[size] = '\0';
	while ((line = strsep(&rest, "\n")))
		take_pasta_line(supervisor, line);
	return 0;
}

static int open_pasta_log(struct supervisor *supervisor, int *ret_writer)
{
	cleanup_fd int reader = -1;
	cleanup_fd int writer = -1;
	int ends[2];
	int error;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	reader = ends[0];
	writer = ends[1];
	supervisor->pasta_source = sd_event_source_disable_unref(supervisor->pasta_source);
	fd_close(take_fd(&supervisor->pasta_log));
	if (fcntl(reader, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	error = sd_event_add_io(supervisor->event, &supervisor->pasta_source, reader, EPOLLIN,
		handle_pasta_log, supervisor);
	if (error < 0)
		return error;
	supervisor->pasta_log = take_fd(&reader);
	*ret_writer = take_fd(&writer);
	return 0;
}

static int start_pasta(struct child *child)
{
	struct supervisor *supervisor = child->supervisor;
	const struct pasta_options options = {
		.namespaces = supervisor->options->namespaces,
		.maps_loopback = supervisor->options->maps_loopback,
	};
	cleanup_fd int log = -1;
	int error = open_pasta_log(supervisor, &log);

	return error ? error : pasta_start(&options, log, &child->pid, &child->pidfd);
}

static const struct {
	const char *name;
	int (*start)(struct child *child);
	/* One that exits by itself before it has lived says the same again when it is started
	 * again. */
	bool is_vital;
} kinds[] = {
	[CHILD_PRIV] = {"priv", start_priv, true},
	[CHILD_FORWARDER] = {"the forwarder", start_forwarder, false},
	[CHILD_PASTA] = {"pasta", start_pasta, false},
	[CHILD_FRONT] = {"the front", start_front, true},
};
static_assert(array_length(kinds) == CHILD_COUNT, "every child can be started");

/* --- their lives --- */

static uint64_t now_us(const struct supervisor *supervisor)
{
	uint64_t now = 0;

	(void)sd_event_now(supervisor->event, CLOCK_MONOTONIC, &now);
	return now;
}

static void end(struct supervisor *supervisor, int result)
{
	supervisor->state = SUPERVISOR_ENDED;
	(void)sd_event_exit(supervisor->event, result);
}

static void send_signal(const struct child *child, int number)
{
	if (child->pid > 0)
		(void)syscall(SYS_pidfd_send_signal, child->pidfd, number, NULL, 0);
}

static void start_later(struct child *child, uint64_t delay_us)
{
	(void)sd_event_source_set_time(child->timer, now_us(child->supervisor) + delay_us);
	(void)sd_event_source_set_enabled(child->timer, SD_EVENT_ONESHOT);
}

/* At once the first time, then doubling while it dies young. */
static uint64_t next_delay_us(struct child *child)
{
	uint64_t delay_us;

	if (now_us(child->supervisor) - child->started_us >= YOUNG_US)
		child->restart_delay_us = 0;
	delay_us = child->restart_delay_us;
	child->restart_delay_us = delay_us ? 2 * delay_us : RESTART_DELAY_US;
	if (child->restart_delay_us > RESTART_DELAY_MAX_US)
		child->restart_delay_us = RESTART_DELAY_MAX_US;
	return delay_us;
}

static int handle_end(sd_event_source *source, int fd, uint32_t events, void *userdata);

static int start_child(struct child *child)
{
	int error = kinds[child->kind].start(child);

	child->started_us = now_us(child->supervisor);
	if (error)
		return error;
	log_debug(TAG, "%s is process %d", kinds[child->kind].name, (int)child->pid);
	return sd_event_add_io(
		child->supervisor->event, &child->end, child->pidfd, EPOLLIN, handle_end, child);
}

/* That pasta is not installed is told when the broker starts, among what else is in the way. */
static void tell_failure(const struct child *child, int error)
{
	if (child->kind != CHILD_PASTA || error != -ENOENT)
		log_error(TAG, "starting %s failed: %s", kinds[child->kind].name, strerror(-error));
}

static void launch(struct child *child)
{
	int error = start_child(child);
	uint64_t delay_us;

	if (error >= 0)
		return;
	tell_failure(child, error);
	delay_us = next_delay_us(child);
	start_later(child, delay_us ? delay_us : RESTART_DELAY_US);
}

static int handle_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct child *child = userdata;

	if (child->supervisor->state == SUPERVISOR_SERVING)
		launch(child);
	return 0;
}

/* Returns what it exited with, -1 when a signal ended it. */
static int reap(struct child *child)
{
	siginfo_t info = {0};
	int result;

	do {
		result = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED);
	} while (result < 0 && errno == EINTR);
	child->pid = 0;
	child->end = sd_event_source_disable_unref(child->end);
	fd_close(take_fd(&child->pidfd));
	return result == 0 && info.si_code == CLD_EXITED ? info.si_status : -1;
}

static void tell_end(const struct child *child, int status)
{
	const char *name = kinds[child->kind].name;

	if (child->kind == CHILD_PASTA && status > 0)
		log_warn(TAG,
			"pasta ended, so VMs do not reach the world; it is started again until it "
			"stays: %s",
			*child->supervisor->pasta_line ? child->supervisor->pasta_line
						       : "it did not say why");
	else
		log_error(TAG, "%s died (%s): starting another", name,
			status >= 0 ? "it gave up" : "a signal ended it");
}

static void restart(struct child *child, int status)
{
	uint64_t delay_us = next_delay_us(child);

	/* Once, and not for each try. */
	if (!delay_us)
		tell_end(child, status);
	if (delay_us)
		start_later(child, delay_us);
	else
		launch(child);
}

/* A front ends with priv, however young it is. */
static bool has_lost_priv(const struct child *child)
{
	const struct child *priv = &child->supervisor->children[CHILD_PRIV];
	struct pollfd ended = {.fd = priv->pidfd, .events = POLLIN};

	return child->kind == CHILD_FRONT &&
	       (priv->pid == 0 || priv->restart_delay_us > 0 || poll(&ended, 1, 0) == 1);
}

static bool could_not_start(const struct child *child, int status)
{
	return kinds[child->kind].is_vital && status > 0 && !child->has_lived &&
	       !child->restart_delay_us && !has_lost_priv(child);
}

static int handle_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct child *child = userdata;
	struct supervisor *supervisor = child->supervisor;
	int status = reap(child);

	if (child->kind == CHILD_PASTA && supervisor->pasta_source)
		handle_pasta_log(supervisor->pasta_source, supervisor->pasta_log, 0, supervisor);
	child->has_lived = child->has_lived || now_us(supervisor) - child->started_us >= YOUNG_US;
	if (child->kind == CHILD_FRONT && (status == 0 || supervisor->state == SUPERVISOR_STOPPING))
		end(supervisor, 0);
	else if (supervisor->state != SUPERVISOR_SERVING)
		return 0;
	else if (could_not_start(child, status)) {
		log_error(TAG, "%s could not start (exit status %d)", kinds[child->kind].name,
			status);
		end(supervisor, -ECANCELED);
	} else {
		restart(child, status);
	}
	return 0;
}

/* --- the pause process --- */

static int watch_pause(struct supervisor *supervisor);

static int handle_pause_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct supervisor *supervisor = userdata;
	const struct supervisor_options *options = supervisor->options;
	int error;

	supervisor->pause = sd_event_source_disable_unref(source);
	error = namespaces_revive(options->runtime_directory, options->namespaces);
	if (!error)
		error = watch_pause(supervisor);
	if (error)
		log_error(TAG,
			"the pause process died, and another could not be started: %s; the "
			"networks end with this broker",
			strerror(-error));
	else
		log_warn(TAG, "the pause process died: another holds the networks now");
	return 0;
}

static int watch_pause(struct supervisor *supervisor)
{
	int error = sd_event_add_io(supervisor->event, &supervisor->pause,
		supervisor->options->namespaces->hold, EPOLLIN, handle_pause_end, supervisor);

	return error < 0 ? error : 0;
}

/* --- the loop --- */

static int handle_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct supervisor *supervisor = userdata;
	struct child *front = &supervisor->children[CHILD_FRONT];

	if (supervisor->state != SUPERVISOR_SERVING)
		return 0;
	supervisor->state = SUPERVISOR_STOPPING;
	if (front->pid == 0) {
		end(supervisor, 0);
		return 0;
	}
	send_signal(front, SIGTERM);
	(void)sd_event_source_set_time(supervisor->patience, now_us(supervisor) + STOP_PATIENCE_US);
	(void)sd_event_source_set_enabled(supervisor->patience, SD_EVENT_ONESHOT);
	return 0;
}

static int handle_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *supervisor = userdata;

	log_warn(TAG, "the front does not end: killing it");
	send_signal(&supervisor->children[CHILD_FRONT], SIGKILL);
	return 0;
}

/* Read again by the front, which has the configuration. */
static int handle_reload(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct supervisor *supervisor = userdata;

	send_signal(&supervisor->children[CHILD_FRONT], SIGHUP);
	return 0;
}

static int add_timer(struct supervisor *supervisor, sd_event_source **ret_source,
	sd_event_time_handler_t handler, void *context)
{
	int error = sd_event_add_time(supervisor->event, ret_source, CLOCK_MONOTONIC, 0,
		TIMER_ACCURACY_US, handler, context);

	return error < 0 ? error : sd_event_source_set_enabled(*ret_source, SD_EVENT_OFF);
}

static int block_signals(void)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
	sigset_t blocked;

	/* Whoever reads our log may go; we stay. */
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	sigemptyset(&blocked);
	for (size_t i = 0; i < array_length(numbers); i++)
		sigaddset(&blocked, numbers[i]);
	return sigprocmask(SIG_BLOCK, &blocked, NULL) < 0 ? -errno : 0;
}

static int open_loop(struct supervisor *supervisor)
{
	int error = block_signals();

	if (error >= 0)
		error = sd_event_new(&supervisor->event);
	if (error >= 0)
		error = sd_event_add_signal(
			supervisor->event, NULL, SIGTERM, handle_stop, supervisor);
	if (error >= 0)
		error = sd_event_add_signal(
			supervisor->event, NULL, SIGINT, handle_stop, supervisor);
	if (error >= 0)
		error = sd_event_add_signal(
			supervisor->event, NULL, SIGHUP, handle_reload, supervisor);
	if (error >= 0)
		error = add_timer(supervisor, &supervisor->patience, handle_patience, supervisor);
	for (size_t i = 0; i < CHILD_COUNT && error >= 0; i++)
		error = add_timer(supervisor, &supervisor->children[i].timer, handle_timer,
			&supervisor->children[i]);
	return error < 0 ? error : 0;
}

static void init(struct supervisor *supervisor, const struct supervisor_options *options)
{
	*supervisor = (struct supervisor){
		.options = options,
		.priv_listener = -1,
		.forwarder_listener = -1,
		.pasta_log = -1,
	};
	for (size_t i = 0; i < CHILD_COUNT; i++)
		supervisor->children[i] = (struct child){
			.supervisor = supervisor, .kind = (enum child_kind)i, .pidfd = -1};
}

/* priv takes its dnsmasq along in order when it is asked to; the others have nothing to put away.
 */
static void stop_children(struct supervisor *supervisor)
{
	for (size_t i = 0; i < CHILD_COUNT; i++)
		send_signal(&supervisor->children[i], i == CHILD_PRIV ? SIGTERM : SIGKILL);
	for (size_t i = 0; i < CHILD_COUNT; i++) {
		struct child *child = &supervisor->children[i];

		if (child->pid > 0)
			(void)reap(child);
		sd_event_source_disable_unref(child->timer);
	}
}

static void done(struct supervisor *supervisor)
{
	const char *runtime_directory = supervisor->options->runtime_directory;

	stop_children(supervisor);
	sd_event_source_disable_unref(supervisor->patience);
	sd_event_source_disable_unref(supervisor->pasta_source);
	sd_event_source_disable_unref(supervisor->pause);
	fd_close(supervisor->pasta_log);
	sd_event_unref(supervisor->event);
	sockets_close(runtime_directory, "priv", supervisor->priv_listener);
	sockets_close(runtime_directory, "forwarder", supervisor->forwarder_listener);
}

static int run(struct supervisor *supervisor)
{
	const char *runtime_directory = supervisor->options->runtime_directory;
	int error = open_loop(supervisor);

	if (!error)
		error = watch_pause(supervisor);
	if (!error)
		error = sandbox_no_new_privileges();
	if (!error)
		error = sockets_listen(runtime_directory, "priv", &supervisor->priv_listener);
	if (!error)
		error = sockets_listen(
			runtime_directory, "forwarder", &supervisor->forwarder_listener);
	if (error) {
		log_error(TAG, "starting failed: %s", strerror(-error));
		return error;
	}
	for (size_t i = 0; i < CHILD_COUNT; i++)
		launch(&supervisor->children[i]);
	return sd_event_loop(supervisor->event);
}

int supervisor_run(const struct supervisor_options *options)
{
	struct supervisor supervisor;
	int result;

	init(&supervisor, options);
	result = run(&supervisor);
	done(&supervisor);
	return result;
}
