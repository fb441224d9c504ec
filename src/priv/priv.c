#include "priv/priv.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/spawn.h"
#include "priv/confine.h"
#include "priv/dispatch.h"
#include "priv/front.h"
#include "priv/namespace-lock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>

#define TAG                  "priv"
#define STOP_PATIENCE_US     (UINT64_C(10) * 1000000)
#define YOUNG_US             (UINT64_C(5) * 1000000) /* a front that dies before this dies again */
#define RESTART_DELAY_US     (UINT64_C(100) * 1000)
#define RESTART_DELAY_MAX_US (UINT64_C(5) * 1000000)
#define TIMER_ACCURACY_US    1000
#define LOCK_TRIES           250
#define LOCK_POLL_MS         20

enum priv_state {
	PRIV_SERVING,   /* a front runs; its death leads to waiting, its exit 0 to the end */
	PRIV_SLOWED,    /* a front runs and asked too much: the timer leads back to serving */
	PRIV_SILENT,    /* the front, a child, closed its verbs: it exits, or the timer ends it */
	PRIV_WAITING,   /* no front; the timer starts one */
	PRIV_LISTENING, /* no front; the next one to connect is served */
	PRIV_STOPPING, /* the front was told to end; its verbs are served until it does or the timer
			  fires */
	PRIV_ENDED,    /* the loop is about to return */
};

struct priv {
	const struct priv_options *options;
	enum priv_state state;
	struct priv_context context;
	struct front front;
	struct verb_pace pace;
	bool ready;                /* a front has asked for something */
	uint64_t started_us;       /* when the front was started */
	uint64_t restart_delay_us; /* 0: the next one at once */
	sd_event *event;
	sd_event_source *verbs;
	sd_event_source *listener; /* where fronts connect; NULL by hand */
	sd_event_source *timer;
};

static bool starts_fronts(const struct priv *priv)
{
	return priv->options->front_arguments;
}

static void log_verb(const struct verb_reply *reply)
{
	if (reply->result < 0)
		log_debug(TAG, "%s: %s: %s", verb_to_text(reply->verb), strerror(-reply->result),
			reply->detail);
	else
		log_debug(TAG, "%s: done", verb_to_text(reply->verb));
}

static uint64_t now_us(struct priv *priv)
{
	uint64_t now = 0;

	(void)sd_event_now(priv->event, CLOCK_MONOTONIC, &now);
	return now;
}

static void set_timer(struct priv *priv, uint64_t delay_us)
{
	(void)sd_event_source_set_time(priv->timer, now_us(priv) + delay_us);
	(void)sd_event_source_set_enabled(priv->timer, SD_EVENT_ONESHOT);
}

/* The one place where the state changes. delay_us is the timer's; 0 for none. */
static void enter(struct priv *priv, enum priv_state state, uint64_t delay_us)
{
	bool serves = state == PRIV_SERVING || state == PRIV_STOPPING;

	priv->state = state;
	if (priv->verbs)
		(void)sd_event_source_set_enabled(priv->verbs, serves ? SD_EVENT_ON : SD_EVENT_OFF);
	if (priv->listener)
		(void)sd_event_source_set_enabled(
			priv->listener, state == PRIV_LISTENING ? SD_EVENT_ON : SD_EVENT_OFF);
	if (delay_us)
		set_timer(priv, delay_us);
	else
		(void)sd_event_source_set_enabled(priv->timer, SD_EVENT_OFF);
}

static void end(struct priv *priv, int result)
{
	enter(priv, PRIV_ENDED, 0);
	(void)sd_event_exit(priv->event, result);
}

static void note_ready(struct priv *priv)
{
	if (!priv->ready)
		(void)sd_notify(0, "READY=1");
	priv->ready = true;
}

/*
 * Nothing is read while a reply might not fit: a front that does not take its answers gets no more,
 * and holds nobody up. An AF_UNIX socket is writable while a good part of its buffer is free, which
 * is room for many replies.
 */
static bool has_room(struct priv *priv, uint32_t revents)
{
	struct pollfd room = {.fd = priv->front.verbs, .events = POLLOUT};
	bool writable = poll(&room, 1, 0) == 1;

	if (!writable)
		(void)sd_event_source_set_io_events(priv->verbs, EPOLLOUT);
	else if (revents & EPOLLOUT)
		(void)sd_event_source_set_io_events(priv->verbs, EPOLLIN);
	return writable;
}

static bool is_paced(struct priv *priv)
{
	uint64_t delay_us;

	/* Its time is up soon anyway. */
	if (priv->state == PRIV_STOPPING)
		return false;
	delay_us = verb_pace_take(&priv->pace, now_us(priv));
	if (delay_us)
		enter(priv, PRIV_SLOWED, delay_us);
	return delay_us > 0;
}

static void remove_front(struct priv *priv)
{
	priv->verbs = sd_event_source_disable_unref(priv->verbs);
	/* Nobody would tell of new interfaces, nor hold what a user may have of them. */
	captures_end_all(priv->context.captures);
	front_done(&priv->front);
}

/* A front that ends closes its verbs first; a child that lives on without them may be up to
 * something. */
static void note_silence(struct priv *priv)
{
	if (!starts_fronts(priv)) {
		remove_front(priv);
		enter(priv, PRIV_LISTENING, 0);
	} else if (priv->state == PRIV_STOPPING)
		(void)sd_event_source_set_enabled(priv->verbs, SD_EVENT_OFF);
	else
		enter(priv, PRIV_SILENT, STOP_PATIENCE_US);
}

/* A reply is lost, so that the front would wait for ever. */
static void give_up_front(struct priv *priv)
{
	if (starts_fronts(priv)) {
		(void)sd_event_source_set_enabled(priv->verbs, SD_EVENT_OFF);
		front_signal(&priv->front, SIGKILL);
	} else {
		note_silence(priv);
	}
}

static int on_verbs(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct priv *priv = userdata;
	struct verb_reply reply;
	int result;

	if (!has_room(priv, revents) || is_paced(priv))
		return 0;
	result = verbs_serve(&priv->context, fd, &reply);
	if (result == 1) {
		log_verb(&reply);
		note_ready(priv);
	} else if (result == 0) {
		note_silence(priv);
	} else if (result != -EAGAIN) {
		give_up_front(priv);
	}
	return 0;
}

static int serve_front(struct priv *priv)
{
	int error = sd_event_add_io(
		priv->event, &priv->verbs, priv->front.verbs, EPOLLIN, on_verbs, priv);

	if (error < 0)
		return error;
	enter(priv, PRIV_SERVING, 0);
	return 0;
}

static int start_front(struct priv *priv)
{
	int error = front_start(priv->options, &priv->front);

	priv->started_us = now_us(priv);
	if (!error)
		error = serve_front(priv);
	if (!error)
		log_debug(TAG, "front is process %d", (int)priv->front.pid);
	return error;
}

/* At once the first time, then doubling while fronts die young: a fault that comes back must not
 * eat a processor. */
static uint64_t next_restart_delay_us(struct priv *priv)
{
	uint64_t delay_us;

	if (now_us(priv) - priv->started_us >= YOUNG_US)
		priv->restart_delay_us = 0;
	delay_us = priv->restart_delay_us;
	priv->restart_delay_us = delay_us ? 2 * delay_us : RESTART_DELAY_US;
	if (priv->restart_delay_us > RESTART_DELAY_MAX_US)
		priv->restart_delay_us = RESTART_DELAY_MAX_US;
	return delay_us;
}

static void launch_front(struct priv *priv)
{
	uint64_t delay_us;
	int error = start_front(priv);

	if (!error)
		return;
	log_error(TAG, "starting the front failed: %s", strerror(-error));
	remove_front(priv);
	delay_us = next_restart_delay_us(priv);
	enter(priv, PRIV_WAITING, delay_us ? delay_us : RESTART_DELAY_US);
}

static void restart_front(struct priv *priv)
{
	uint64_t delay_us = next_restart_delay_us(priv);

	if (delay_us)
		enter(priv, PRIV_WAITING, delay_us);
	else
		launch_front(priv);
}

static void note_front_end(struct priv *priv, int exit_status)
{
	remove_front(priv);
	if (priv->state == PRIV_STOPPING || exit_status == 0) {
		end(priv, 0);
	} else if (!priv->ready && exit_status > 0) {
		/* It has said why; another one would say the same. */
		log_error(TAG, "the front could not start (exit status %d)", exit_status);
		end(priv, -ECANCELED);
	} else {
		log_error(TAG, "the front died (%s): starting another",
			exit_status > 0 ? "it gave up" : "a signal ended it");
		restart_front(priv);
	}
}

static int on_child(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct priv *priv = userdata;
	int exit_status;

	dnsmasq_reap(priv->context.dnsmasq);
	captures_reap(priv->context.captures);
	if (front_reap(&priv->front, &exit_status))
		note_front_end(priv, exit_status);
	return 0;
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct priv *priv = userdata;
	int error;

	if (!priv->options->is_rootless && spawn_own_program_was_replaced()) {
		log_info(TAG, "another build is installed: ending, so that it takes over");
		end(priv, 0);
		return 0;
	}
	error = front_accept(priv->options, &priv->front);
	if (!error)
		error = serve_front(priv);
	if (error == -EACCES)
		log_warn(TAG, "refused a connection: only user %u may ask for anything here",
			(unsigned int)priv->options->front_uid);
	else if (error < 0 && error != -EAGAIN)
		log_error(TAG, "accepting the front failed: %s", strerror(-error));
	if (error < 0)
		remove_front(priv);
	return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct priv *priv = userdata;

	if (priv->state == PRIV_WAITING || !starts_fronts(priv)) {
		end(priv, 0);
	} else if (priv->state != PRIV_STOPPING && priv->state != PRIV_ENDED) {
		(void)sd_notify(0, "STOPPING=1");
		front_signal(&priv->front, SIGTERM);
		enter(priv, PRIV_STOPPING, STOP_PATIENCE_US);
	}
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct priv *priv = userdata;

	if (priv->state == PRIV_SLOWED) {
		enter(priv, PRIV_SERVING, 0);
	} else if (priv->state == PRIV_WAITING) {
		launch_front(priv);
	} else if (priv->state == PRIV_STOPPING || priv->state == PRIV_SILENT) {
		log_warn(TAG, "the front does not end: killing it");
		front_signal(&priv->front, SIGKILL);
	}
	return 0;
}

static int block_signals(void)
{
	sigset_t blocked;

	/* Whoever reads our log may go; we stay. */
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	return sigprocmask(SIG_BLOCK, &blocked, NULL) < 0 ? -errno : 0;
}

static int open_loop(struct priv *priv)
{
	int error = block_signals();

	if (error)
		return error;
	error = sd_event_new(&priv->event);
	if (error >= 0)
		error = sd_event_add_signal(priv->event, NULL, SIGTERM, on_stop, priv);
	if (error >= 0)
		error = sd_event_add_signal(priv->event, NULL, SIGINT, on_stop, priv);
	if (error >= 0)
		error = sd_event_add_signal(priv->event, NULL, SIGCHLD, on_child, priv);
	if (error >= 0)
		error = sd_event_add_time(priv->event, &priv->timer, CLOCK_MONOTONIC, 0,
			TIMER_ACCURACY_US, on_timer, priv);
	if (error >= 0)
		error = sd_event_source_set_enabled(priv->timer, SD_EVENT_OFF);
	if (error >= 0)
		error = sd_event_set_watchdog(priv->event, true);
	return error < 0 ? error : 0;
}

/*
 * An ordinary user's namespaces are taken over from a broker that was killed, whose priv is about
 * to follow it; that nobody else serves there is said by the runtime directory's lock.
 */
static int await_lock(bool is_rootless)
{
	int lock = namespace_lock_take();

	for (int tries = 0; is_rootless && lock == -EADDRINUSE && tries < LOCK_TRIES; tries++) {
		poll(NULL, 0, LOCK_POLL_MS);
		lock = namespace_lock_take();
	}
	return lock;
}

static int lock_namespace(bool is_rootless)
{
	int lock = await_lock(is_rootless);

	if (lock == -EADDRINUSE)
		log_error(TAG, "another vmnet-broker runs in this network namespace: use that one, "
			       "or stop it first");
	else if (lock < 0)
		log_error(TAG, "taking the network namespace failed: %s", strerror(-lock));
	return lock;
}

static int confine(void)
{
	int error = confine_process();

	if (error)
		log_error(TAG,
			"giving up privileges failed (%s): start it as root with the "
			"capabilities NET_ADMIN, NET_RAW, NET_BIND_SERVICE, SETUID, "
			"SETGID and KILL",
			strerror(-error));
	return error;
}

static int open_context(struct priv *priv)
{
	const struct priv_options *options = priv->options;
	const struct dnsmasq_options dnsmasq_options = {
		.uid = options->front_uid,
		.gid = options->front_gid,
		.user_name = options->front_user_name,
		.state_dir = options->state_dir,
		.runtime_dir = options->runtime_dir,
	};
	const struct captures_options captures_options = {
		.uid = options->front_uid,
		.gid = options->front_gid,
		.user_name = options->front_user_name,
	};
	int error = links_open(options->instance, options->runtime_dir, &priv->context.links);

	priv->context.instance = options->instance;
	priv->context.is_rootless = options->is_rootless;
	if (!error)
		error = dnsmasq_table_new(&dnsmasq_options, &priv->context.dnsmasq);
	if (!error)
		error = captures_new(&captures_options, &priv->context.captures);
	if (!error)
		error = open_loop(priv);
	if (error)
		log_error(TAG, "starting failed: %s", strerror(-error));
	return error;
}

static void close_context(struct priv *priv)
{
	remove_front(priv);
	captures_free(priv->context.captures);
	dnsmasq_table_free(priv->context.dnsmasq);
	links_close(priv->context.links);
	sd_event_source_disable_unref(priv->listener);
	sd_event_source_disable_unref(priv->timer);
	sd_event_unref(priv->event);
}

static int listen_for_fronts(struct priv *priv)
{
	int error = sd_event_add_io(priv->event, &priv->listener, priv->options->listen_fd, EPOLLIN,
		on_connection, priv);

	if (error < 0)
		return error;
	enter(priv, PRIV_LISTENING, 0);
	note_ready(priv);
	return 0;
}

static int run_loop(struct priv *priv)
{
	int error = open_context(priv);

	if (error)
		return error;
	error = starts_fronts(priv) ? start_front(priv) : listen_for_fronts(priv);
	if (error < 0) {
		log_error(TAG, "starting the front failed: %s", strerror(-error));
		return error;
	}
	return sd_event_loop(priv->event);
}

int priv_run(const struct priv_options *options)
{
	cleanup_fd int lock = -1;
	struct priv priv = {.options = options};
	int result;

	result = confine();
	if (result)
		return result;
	lock = lock_namespace(options->is_rootless);
	if (lock < 0)
		return lock;
	front_init(&priv.front);
	result = run_loop(&priv);
	close_context(&priv);
	return result;
}
