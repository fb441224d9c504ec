/*
 * vmnet-broker: gives networks to VMs. Started by hand it becomes priv, which starts the same
 * program again as the front; systemd starts each of the two by itself.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/options.h"
#include "base/text.h"
#include "base/user-paths.h"
#include "broker/check-config.h"
#include "broker/front.h"
#include "broker/rootless.h"
#include "broker/setup.h"
#include "forwarder/forwarder.h"
#include "priv/priv.h"
#include "rootless/pause.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define IDLE_TIMEOUT_MAX_S 86400
#define FRONT_ARGUMENTS    10
#define FORWARDER_LISTEN   3 /* the fd it is started with */

enum role {
	ROLE_WHOLE,        /* priv, which starts the front */
	ROLE_CHECK_CONFIG, /* serves nobody */
	ROLE_FRONT,        /* started by priv */
	ROLE_FRONT_UNIT,   /* a service of its own; priv is another */
	ROLE_PRIV_UNIT,
	ROLE_PRIV_ROOTLESS, /* these are started by the broker of an ordinary user */
	ROLE_PAUSE,
	ROLE_FORWARDER,
	ROLE_CAPTURE, /* started by priv */
	ROLE_COUNT,
};

struct arguments {
	const char *config_directory;
	const char *runtime_directory;
	const char *state_directory;
	const char *group_name;
	const char *user_name;
	uint32_t idle_timeout_s;
	uint32_t instance;
	bool exit_when_idle;
	bool rootless;
	bool allow_host_loopback;
	bool verbose;
	bool help;
	bool version;
	enum role role;
};

static int take_directory(const char **directory, const char *argument, char *error)
{
	if (*argument != '/') {
		snprintf(error, OPTIONS_ERROR_SIZE, "an absolute path is needed");
		return -EINVAL;
	}
	*directory = argument;
	return 0;
}

static int parse_config(void *context, const char *argument, char *error)
{
	return take_directory(&((struct arguments *)context)->config_directory, argument, error);
}

static int parse_runtime_dir(void *context, const char *argument, char *error)
{
	return take_directory(&((struct arguments *)context)->runtime_directory, argument, error);
}

static int parse_state_dir(void *context, const char *argument, char *error)
{
	return take_directory(&((struct arguments *)context)->state_directory, argument, error);
}

static int parse_group(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->group_name = argument;
	return 0;
}

static int parse_user(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->user_name = argument;
	return 0;
}

static int parse_idle_timeout(void *context, const char *argument, char *error)
{
	struct arguments *arguments = context;

	snprintf(error, OPTIONS_ERROR_SIZE, "seconds from 0 to %d", IDLE_TIMEOUT_MAX_S);
	return text_to_uint32(argument, 0, IDLE_TIMEOUT_MAX_S, &arguments->idle_timeout_s);
}

static int parse_exit_when_idle(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->exit_when_idle = true;
	return 0;
}

static int parse_rootless(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->rootless = true;
	return 0;
}

static int parse_allow_host_loopback(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->allow_host_loopback = true;
	return 0;
}

static int parse_check_config(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->role = ROLE_CHECK_CONFIG;
	return 0;
}

static int parse_verbose(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->verbose = true;
	return 0;
}

static int parse_help(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->help = true;
	return 0;
}

static int parse_version(void *context, const char *argument, char *error)
{
	((struct arguments *)context)->version = true;
	return 0;
}

static const char *const role_names[] = {
	[ROLE_FRONT] = "front",
	[ROLE_FRONT_UNIT] = "front-unit",
	[ROLE_PRIV_UNIT] = "priv-unit",
	[ROLE_PRIV_ROOTLESS] = "priv-rootless",
	[ROLE_PAUSE] = "pause",
	[ROLE_FORWARDER] = "forwarder",
	[ROLE_CAPTURE] = "capture",
};
static_assert(array_length(role_names) == ROLE_COUNT, "every role but the default has a name");

static int parse_role(void *context, const char *argument, char *error)
{
	struct arguments *arguments = context;

	for (size_t i = 0; i < ROLE_COUNT; i++)
		if (role_names[i] && strcmp(argument, role_names[i]) == 0) {
			arguments->role = (enum role)i;
			return 0;
		}
	snprintf(error, OPTIONS_ERROR_SIZE, "front, front-unit, priv-unit or forwarder");
	return -EINVAL;
}

static int parse_instance(void *context, const char *argument, char *error)
{
	snprintf(error, OPTIONS_ERROR_SIZE, "a number");
	return text_to_uint32(argument, 0, UINT32_MAX, &((struct arguments *)context)->instance);
}

static const struct option_entry option_table[] = {
	{"config", 0, "DIR", "where networks.json is (/etc/vmnet-broker)", parse_config},
	{"check-config", 0, NULL, "print every mistake in it, serve nobody", parse_check_config},
	{"runtime-dir", 0, "DIR", "socket and records (/run/vmnet-broker)", parse_runtime_dir},
	{"state-dir", 0, "DIR", "what outlives networks (/var/lib/vmnet-broker)", parse_state_dir},
	{"group", 0, "NAME", "who may connect (vmnet, else root only)", parse_group},
	{"user", 0, "NAME", "whom the front runs as (vmnet-broker, else nobody)", parse_user},
	{"idle-timeout", 0, "SECONDS", "how long an unused network stays (120)",
		parse_idle_timeout},
	{"exit-when-idle", 0, NULL, "end that long after the last network and peer",
		parse_exit_when_idle},
	{"rootless", 0, NULL, "networks of this user's own, without root", parse_rootless},
	{"allow-host-loopback", 0, NULL,
		"with --rootless: VMs reach the host's 127.0.0.1, at its router's address",
		parse_allow_host_loopback},
	{"verbose", 'v', NULL, "show debug lines", parse_verbose},
	{"help", 'h', NULL, "show this help", parse_help},
	{"version", 0, NULL, "show version and commit", parse_version},
	/* How priv starts the front, and systemd each. */
	{"role", 0, "ROLE", NULL, parse_role},
	{"instance", 0, "NUMBER", NULL, parse_instance},
};

static int run_front_with(const struct arguments *arguments, int verbs, int listen_fd, bool is_unit)
{
	struct front_options options = {
		.config_directory = arguments->config_directory,
		.runtime_directory = arguments->runtime_directory,
		.state_directory = arguments->state_directory,
		.verbs = verbs,
		.listen_fd = listen_fd,
		.is_unit = is_unit,
		.is_rootless = arguments->rootless,
		.instance = arguments->instance,
		.idle_timeout_s = arguments->idle_timeout_s,
		.exit_when_idle = arguments->exit_when_idle,
	};

	return front_run(&options);
}

static int run_front(const struct arguments *arguments)
{
	/* It was started through /proc/self/exe, and ps would call it "exe". */
	prctl(PR_SET_NAME, "vmnet-broker");
	return run_front_with(arguments, FRONT_VERBS, FRONT_LISTEN, false);
}

static int run_front_unit(const struct arguments *arguments)
{
	char error[SETUP_ERROR_SIZE] = "";
	int verbs, listen_fd;
	int result = setup_front_unit(arguments->runtime_directory, &verbs, &listen_fd, error);

	if (result) {
		log_error("main", "%s", error);
		return result;
	}
	return run_front_with(arguments, verbs, listen_fd, true);
}

/* The front's command line; texts is where the made ones live. */
struct front_command {
	char config[PATH_MAX], runtime[PATH_MAX], state[PATH_MAX];
	char instance[32], idle_timeout[32];
	char *arguments[FRONT_ARGUMENTS];
};

static void make_front_command(
	struct front_command *command, const struct arguments *arguments, uint32_t instance)
{
	static char program[] = "vmnet-broker", role[] = "--role=front";
	static char exit_when_idle[] = "--exit-when-idle", verbose[] = "--verbose";
	size_t count = 0;

	snprintf(command->runtime, PATH_MAX, "--runtime-dir=%s", arguments->runtime_directory);
	snprintf(command->state, PATH_MAX, "--state-dir=%s", arguments->state_directory);
	snprintf(command->instance, sizeof(command->instance), "--instance=%u", instance);
	snprintf(command->idle_timeout, sizeof(command->idle_timeout), "--idle-timeout=%u",
		arguments->idle_timeout_s);
	command->arguments[count++] = program;
	command->arguments[count++] = role;
	command->arguments[count++] = command->runtime;
	command->arguments[count++] = command->state;
	command->arguments[count++] = command->instance;
	command->arguments[count++] = command->idle_timeout;
	if (arguments->config_directory) {
		snprintf(command->config, PATH_MAX, "--config=%s", arguments->config_directory);
		command->arguments[count++] = command->config;
	}
	if (arguments->exit_when_idle)
		command->arguments[count++] = exit_when_idle;
	if (arguments->verbose)
		command->arguments[count++] = verbose;
	command->arguments[count] = NULL;
}

static int run_priv_with(const struct arguments *arguments, const struct setup *setup)
{
	static struct front_command command;
	struct priv_options options = {
		.instance = setup->instance,
		.state_dir = arguments->state_directory,
		.runtime_dir = arguments->runtime_directory,
		.front_uid = setup->uid,
		.front_gid = setup->gid,
		.front_user_name = setup->user_name,
		.listen_fd = setup->listen_fd,
	};

	if (arguments->role == ROLE_WHOLE) {
		make_front_command(&command, arguments, setup->instance);
		options.front_arguments = command.arguments;
	}
	return priv_run(&options);
}

/* A loop takes them once it runs; before that they would end us with a socket left behind. */
static int block_stop_signals(void)
{
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	return sigprocmask(SIG_BLOCK, &blocked, NULL) < 0 ? -errno : 0;
}

static int run_rootless(const struct arguments *arguments)
{
	const struct rootless_options options = {
		.config_directory = arguments->config_directory,
		.runtime_directory = arguments->runtime_directory,
		.state_directory = arguments->state_directory,
		.idle_timeout_s = arguments->idle_timeout_s,
		.exit_when_idle = arguments->exit_when_idle,
		.allows_host_loopback = arguments->allow_host_loopback,
		.verbose = arguments->verbose,
	};
	int error;

	if (arguments->user_name || arguments->group_name) {
		log_error("main",
			"option --%s: with --rootless all is this user's own; leave it "
			"out",
			arguments->user_name ? "user" : "group");
		return -EINVAL;
	}
	error = block_stop_signals();
	return error ? error : rootless_run(&options);
}

static int check_rootless_only(const struct arguments *arguments)
{
	if (!arguments->allow_host_loopback || arguments->rootless)
		return 0;
	log_error("main", "option --allow-host-loopback goes with --rootless alone: VMs of the "
			  "system's broker never reach the host's loopback; leave it out");
	return -EINVAL;
}

static int run_priv_rootless(const struct arguments *arguments)
{
	return rootless_run_priv(
		arguments->runtime_directory, arguments->state_directory, arguments->instance);
}

static int run_pause(const struct arguments *arguments)
{
	return pause_run(arguments->runtime_directory);
}

static int run_capture(const struct arguments *arguments)
{
	prctl(PR_SET_NAME, "vmnet-capture");
	return priv_run_capture();
}

static int run_priv(const struct arguments *arguments)
{
	const struct setup_options options = {
		.runtime_directory = arguments->runtime_directory,
		.state_directory = arguments->state_directory,
		.user_name = arguments->user_name,
		.group_name = arguments->group_name,
	};
	char error[SETUP_ERROR_SIZE] = "";
	struct setup setup;
	int result;

	if (arguments->rootless && arguments->role == ROLE_WHOLE)
		return run_rootless(arguments);
	if (geteuid() != 0) {
		log_error("main",
			"vmnet-broker has to be started as root: by systemd, or with \"sudo "
			"vmnet-broker\"; \"vmnet-broker --rootless\" needs no root");
		return -EPERM;
	}
	umask(022);
	setup_init(&setup);
	result = check_rootless_only(arguments);
	if (result)
		return result;
	result = block_stop_signals();
	if (!result)
		result = arguments->role == ROLE_WHOLE
				 ? setup_prepare(&setup, &options, error)
				 : setup_prepare_unit(&setup, &options, error);
	if (result)
		log_error("main", "%s", *error ? error : strerror(-result));
	else
		result = run_priv_with(arguments, &setup);
	setup_done(&setup);
	return result;
}

/* A default that is not there is an empty configuration; one that was named is a mistake. */
static int check_config_directory(const struct arguments *arguments)
{
	struct stat status;

	if (!arguments->config_directory ||
		(stat(arguments->config_directory, &status) == 0 && S_ISDIR(status.st_mode)))
		return 0;
	log_error("main", "option --config %s: there is no such directory",
		arguments->config_directory);
	return -ENOENT;
}

static int run_check_config(const struct arguments *arguments)
{
	int result = check_config(arguments->config_directory);

	if (result < 0)
		log_error("main", "the configuration could not be checked: %s", strerror(-result));
	return result == 0 ? 0 : -EINVAL;
}

static int run_forwarder(const struct arguments *arguments)
{
	prctl(PR_SET_NAME, "vmnet-forwarder");
	return forwarder_run(FORWARDER_LISTEN);
}

static int (*const run_role[])(const struct arguments *arguments) = {
	[ROLE_WHOLE] = run_priv,
	[ROLE_CHECK_CONFIG] = run_check_config,
	[ROLE_FRONT] = run_front,
	[ROLE_FRONT_UNIT] = run_front_unit,
	[ROLE_PRIV_UNIT] = run_priv,
	[ROLE_PRIV_ROOTLESS] = run_priv_rootless,
	[ROLE_PAUSE] = run_pause,
	[ROLE_FORWARDER] = run_forwarder,
	[ROLE_CAPTURE] = run_capture,
};
static_assert(array_length(run_role) == ROLE_COUNT, "every role is run");

/* Who has no home keeps it all below the runtime directory. */
static int fill_user_paths(struct arguments *arguments)
{
	static char runtime[PATH_MAX], state[PATH_MAX], config[PATH_MAX];
	int error =
		arguments->runtime_directory ? 0 : user_runtime_directory(runtime, sizeof(runtime));

	if (error) {
		log_error("main", "%s: %s; --runtime-dir or XDG_RUNTIME_DIR says where to be",
			*runtime ? runtime : "the runtime directory",
			error == -EPERM ? "it is somebody else's, or others may write there"
					: strerror(-error));
		return error;
	}
	if (!arguments->runtime_directory)
		arguments->runtime_directory = runtime;
	if (!arguments->state_directory && user_state_directory(state, sizeof(state)) < 0 &&
		snprintf(state, sizeof(state), "%s/state", arguments->runtime_directory) >=
			PATH_MAX)
		return -ENAMETOOLONG;
	if (!arguments->state_directory)
		arguments->state_directory = state;
	if (!arguments->config_directory && user_config_directory(config, sizeof(config)) < 0 &&
		snprintf(config, sizeof(config), "%s/config", arguments->runtime_directory) >=
			PATH_MAX)
		return -ENAMETOOLONG;
	if (!arguments->config_directory)
		arguments->config_directory = config;
	return 0;
}

/* What was not said follows from what was. */
static int fill_defaults(struct arguments *arguments)
{
	static char state[PATH_MAX];

	if (!arguments->state_directory && arguments->runtime_directory) {
		snprintf(state, sizeof(state), "%s/state", arguments->runtime_directory);
		arguments->state_directory = state;
	}
	if (arguments->rootless && fill_user_paths(arguments) < 0)
		return -EINVAL;
	if (!arguments->state_directory)
		arguments->state_directory = "/var/lib/vmnet-broker";
	if (!arguments->runtime_directory)
		arguments->runtime_directory = "/run/vmnet-broker";
	if (!arguments->config_directory)
		arguments->config_directory = "/etc/vmnet-broker";
	return 0;
}

int main(int argc, char **argv)
{
	struct arguments arguments = {.idle_timeout_s = 120};
	char error[OPTIONS_ERROR_SIZE] = "";
	int first;
	int result = options_parse(
		option_table, array_length(option_table), argc, argv, &arguments, error, &first);

	if (result < 0) {
		log_error("main", "%s", error);
		return 1;
	}
	if (arguments.help) {
		options_print_help(
			stdout, "vmnet-broker [options]", option_table, array_length(option_table));
		return 0;
	}
	if (arguments.version) {
		options_print_version(stdout);
		return 0;
	}
	if (first < argc) {
		log_error("main", "vmnet-broker takes no argument \"%s\"; --help lists its options",
			argv[first]);
		return 1;
	}
	if (arguments.role <= ROLE_CHECK_CONFIG && check_config_directory(&arguments) < 0)
		return 1;
	log_set_verbose(arguments.verbose);
	if (fill_defaults(&arguments) < 0)
		return 1;
	return run_role[arguments.role](&arguments) < 0 ? 1 : 0;
}
