#include "broker/front.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "broker/config-watch.h"
#include "broker/events.h"
#include "broker/forward.h"
#include "broker/name-service.h"
#include "broker/network-config.h"
#include "broker/platform-linux.h"
#include "broker/server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>

/* pasta's own: what leaves a VM is copied once more there, and large frames are far cheaper. */
#define ROOTLESS_MTU 65520

struct front {
	sd_event *event;
	struct config *config;
	struct platform *platform;
	struct records *records;
	struct forward_records *forward_records; /* until open_forwards() */
	struct registry registry;
	struct server *server;
	struct name_service *names;
	struct config_watch *config_watch;
	const struct front_options *options;
};

/*
 * What serving takes, on the libc of today and of a few years before and after; found by running
 * the tests with each of them missing.
 */
static const char *const system_calls[] = {
	/* memory and the process itself */
	"brk",
	"mmap",
	"munmap",
	"mremap",
	"mprotect",
	"madvise",
	"futex",
	"getrandom",
	"getpid",
	"gettid",
	"getuid",
	"geteuid",
	"exit",
	"exit_group",
	"restart_syscall",
	"rt_sigaction",
	"setitimer",
	"rt_sigprocmask",
	"rt_sigreturn",
	"tgkill",
	"sched_yield",
	"prlimit64",
	"uname",
	/* the loop and its timers */
	"epoll_create1",
	"epoll_ctl",
	"epoll_wait",
	"epoll_pwait",
	"epoll_pwait2",
	"timerfd_create",
	"timerfd_settime",
	"signalfd4",
	"inotify_init1",
	"inotify_add_watch",
	"eventfd2",
	"clock_gettime",
	"clock_nanosleep",
	"gettimeofday",
	"time",
	"poll",
	"ppoll",
	/* sockets: peers, priv, netlink, names of links */
	"accept4",
	"socket",
	"bind",
	"listen",
	"connect",
	"getsockname",
	"getpeername",
	"getsockopt",
	"setsockopt",
	"sendmsg",
	"sendto",
	"recvmsg",
	"recvfrom",
	"shutdown",
	"ioctl",
	"pidfd_open",
	"pidfd_send_signal",
	/* records */
	"read",
	"write",
	"writev",
	"pread64",
	"lseek",
	"close",
	"fcntl",
	"memfd_create",
	"dup",
	"open",
	"openat",
	"stat",
	"fstat",
	"fstatfs",
	"newfstatat",
	"statx",
	"access",
	"faccessat",
	"readlink",
	"readlinkat",
	"getdents64",
	"mkdirat",
	"fchmod",
	"fsync",
	"rename",
	"renameat",
	"renameat2",
	"unlink",
	"unlinkat",
	NULL,
};

static void raise_fd_limit(void)
{
	struct rlimit limit;

	/* Peers may send 16 fds each; the soft limit of 1024 is for programs that use select(2). */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int load_config(struct front *front, const struct front_options *options)
{
	int error = name_service_start(&front->names);

	if (options->is_rootless)
		network_settings_set_default_mtu(ROOTLESS_MTU);

	if (!error)
		error = config_watch_new(options->config_directory, front->names,
			&front->config_watch, &front->config);
	if (error)
		log_error("main", "the configuration could not be read: %s", strerror(-error));
	return error;
}

static int open_records(struct front *front, const struct front_options *options)
{
	int error =
		records_open(options->state_directory, options->runtime_directory, &front->records);

	if (!error)
		error = forward_records_open(options->state_directory, options->runtime_directory,
			&front->forward_records);
	if (error)
		log_error("main",
			"records in %s and %s could not be opened: %s; the broker's user needs to "
			"pass through the directories above them",
			options->state_directory, options->runtime_directory, strerror(-error));
	return error;
}

/* By hand priv speaks for both. */
__attribute__((format(printf, 2, 3))) static void tell_manager(
	const struct front *front, const char *format, ...)
{
	va_list arguments;
	char text[128];

	if (!front->options->is_unit)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	(void)sd_notify(0, text);
}

static int handle_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct front *front = userdata;

	tell_manager(front, "STOPPING=1");
	log_info("main", "ended by signal %u; networks in use stay", info->ssi_signo);
	registry_stop(&front->registry);
	return sd_event_exit(front->event, 0);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int handle_reload(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct front *front = userdata;

	tell_manager(front, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now_us());
	config_watch_reload(front->config_watch);
	return 0;
}

static void take_config(void *context, struct config *config)
{
	struct front *front = context;

	config_free(registry_set_config(&front->registry, config));
	front->config = config;
	events_tell_configuration(&front->registry);
	tell_manager(front, "READY=1");
}

/* From the first moment on: one that comes early is taken when the loop runs. */
static int block_signals(bool stops_too)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	if (stops_too) {
		sigaddset(&signals, SIGTERM);
		sigaddset(&signals, SIGINT);
	}
	return sigprocmask(SIG_BLOCK, &signals, NULL) < 0 ? -errno : 0;
}

static int watch_signals(struct front *front)
{
	int error = block_signals(true);

	if (error >= 0)
		error = sd_event_add_signal(front->event, NULL, SIGTERM, handle_stop, front);
	if (error >= 0)
		error = sd_event_add_signal(front->event, NULL, SIGINT, handle_stop, front);
	if (error >= 0)
		error = sd_event_add_signal(front->event, NULL, SIGHUP, handle_reload, front);
	return error < 0 ? error : 0;
}

static int open_platform(struct front *front, const struct front_options *options)
{
	int error = sd_event_new(&front->event);

	if (error >= 0)
		error = sd_event_set_watchdog(front->event, true);
	if (error >= 0)
		error = platform_open(front->event, options->is_unit ? NULL : &options->instance,

			options->is_rootless ? options->runtime_directory : NULL, options->verbs,
			&front->platform);
	if (error >= 0)
		error = watch_signals(front);
	if (error < 0)
		log_error("main", "the broker's privileged part could not be reached: %s",
			strerror(-error));
	return error < 0 ? error : 0;
}

static int enter_sandbox(void)
{
	int error = sandbox_drop_capabilities();

	if (!error)
		error = sandbox_no_new_privileges();
	if (!error)
		error = sandbox_allow_system_calls(system_calls);
	if (error)
		log_error("main", "the sandbox could not be entered: %s", strerror(-error));
	return error;
}

static int open_registry(struct front *front, const struct front_options *options)
{
	int error;

	front->registry = (struct registry){
		.platform = front->platform,
		.records = front->records,
		.config = front->config,
		.instance = platform_instance(front->platform),
		.idle_timeout_ms = (uint64_t)options->idle_timeout_s * 1000,
		.is_rootless = options->is_rootless,
	};
	error = registry_init(&front->registry);
	if (!error)
		error = registry_adopt(&front->registry);
	if (!error)
		error = config_watch_start(front->config_watch, front->event, take_config, front);
	if (error)
		log_error("main", "the networks could not be read back: %s", strerror(-error));
	return error;
}

/* Behind the adoption, so that the rules in the kernel stay until all their VMs are known. */
static int open_forwards(struct front *front)
{
	int error = forwards_new(
		&front->registry, take_ptr(front->forward_records), &front->registry.forwards);

	if (error)
		log_error("main", "the forwards could not be read back: %s", strerror(-error));
	else
		forwards_configure(front->registry.forwards);
	return error;
}

static int open_server(struct front *front, const struct front_options *options)
{
	struct server_options server_options = {
		.event = front->event,
		.registry = &front->registry,
		.listen_fd = options->listen_fd,
		.exit_when_idle = options->exit_when_idle,
		.idle_timeout_ms = (uint64_t)options->idle_timeout_s * 1000,
	};
	int error = server_new(&server_options, &front->server);

	if (error)
		log_error("main", "the socket could not be served: %s", strerror(-error));
	return error;
}

static void close_front(struct front *front)
{
	struct forwards *forwards = front->registry.forwards;

	forwards_freeze(forwards);
	/* However it ends: the next front goes on with what is leased to connections. */
	front->registry.is_stopping = true;
	server_free(front->server);
	if (front->registry.platform)
		registry_done(&front->registry);
	forwards_free(forwards);
	forward_records_close(front->forward_records);
	records_close(front->records);
	platform_close(front->platform);
	config_watch_free(front->config_watch);
	name_service_free(front->names);
	sd_event_unref(front->event);
	config_free(front->config);
}

static int run(struct front *front, const struct front_options *options)
{
	/* A unit may have to end while priv does not answer yet, or priv would not be started. */
	int error = block_signals(!options->is_unit);

	if (!error)
		error = load_config(front, options);
	if (!error)
		error = open_records(front, options);
	if (!error)
		error = open_platform(front, options);
	if (!error)
		error = enter_sandbox();
	if (!error)
		error = open_registry(front, options);
	if (!error)
		error = open_forwards(front);
	if (!error)
		error = open_server(front, options);
	if (error)
		return error;
	log_debug("main", "serves");
	tell_manager(front, "READY=1");
	error = sd_event_loop(front->event);
	if (error == -ENOTCONN)
		log_error("main", "ended: the broker's privileged part is gone");
	return error;
}

int front_run(const struct front_options *options)
{
	struct front front = {.options = options};
	int error;

	raise_fd_limit();
	error = run(&front, options);
	close_front(&front);
	return error;
}
