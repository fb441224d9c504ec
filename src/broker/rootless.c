#include "broker/rootless.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/setup.h"
#include "priv/priv.h"
#include "rootless/namespaces.h"
#include "rootless/obstacles.h"
#include "rootless/remains.h"
#include "rootless/supervisor.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define TAG            "rootless"
#define ARGUMENTS_MAX  12
#define PRIV_LISTEN_FD 3

/* A command line; text is where its words are. */
struct words {
	char text[4 * PATH_MAX];
	size_t used;
	char *words[ARGUMENTS_MAX + 1];
	size_t count;
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *format, ...)
{
	va_list arguments;
	int length;

	assert(words->count < ARGUMENTS_MAX);
	va_start(arguments, format);
	length = vsnprintf(
		words->text + words->used, sizeof(words->text) - words->used, format, arguments);
	va_end(arguments);
	/* Three paths at most, each of them known to fit PATH_MAX. */
	assert(length >= 0 && words->used + (size_t)length < sizeof(words->text));
	words->words[words->count++] = words->text + words->used;
	words->words[words->count] = NULL;
	words->used += (size_t)length + 1;
}

static void make_command(struct words *words, const char *role,
	const struct rootless_options *options, uint32_t instance)
{
	add(words, "vmnet-broker");
	add(words, "--role=%s", role);
	add(words, "--runtime-dir=%s", options->runtime_directory);
	add(words, "--state-dir=%s", options->state_directory);
	add(words, "--instance=%u", instance);
	if (options->verbose)
		add(words, "--verbose");
}

static void make_front_command(
	struct words *words, const struct rootless_options *options, uint32_t instance)
{
	make_command(words, "front", options, instance);
	add(words, "--rootless");
	add(words, "--idle-timeout=%u", options->idle_timeout_s);
	if (options->config_directory)
		add(words, "--config=%s", options->config_directory);
	if (options->exit_when_idle)
		add(words, "--exit-when-idle");
}

static int supervise(const struct rootless_options *options, const struct setup *setup,
	struct namespaces *namespaces)
{
	static struct words priv, forwarder, front;
	const struct supervisor_options supervisor = {
		.runtime_directory = options->runtime_directory,
		.namespaces = namespaces,
		.priv_arguments = priv.words,
		.forwarder_arguments = forwarder.words,
		.front_arguments = front.words,
		.listen_fd = setup->listen_fd,
		.maps_loopback = options->allows_host_loopback,
	};

	make_command(&priv, "priv-rootless", options, setup->instance);
	make_command(&forwarder, "forwarder", options, setup->instance);
	make_front_command(&front, options, setup->instance);
	return supervisor_run(&supervisor);
}

struct worst {
	char text[SETUP_ERROR_SIZE];
};

/* What else is missing is not what kept the namespaces from being made. */
static void take_worst(void *context, const struct obstacle *obstacle)
{
	struct worst *worst = context;

	if (!*worst->text && strncmp(obstacle->problem, "userns", strlen("userns")) == 0)
		snprintf(worst->text, sizeof(worst->text), "%s; as root: %s", obstacle->text,
			obstacle->mend);
}

static int fail_namespaces(int error)
{
	struct worst worst = {""};

	obstacles_list(NULL, take_worst, &worst);
	log_error(TAG, "a namespace for the networks could not be made: %s; %s", strerror(-error),
		*worst.text ? worst.text
			    : "vmnetctl doctor finds out why; entries in /etc/subuid are not "
			      "needed");
	return error;
}

/* What a user has to know before the first VM finds out. */
static void tell_obstacle(void *context, const struct obstacle *obstacle)
{
	if (obstacle->grade == OBSTACLE_VITAL)
		log_warn(TAG, "%s; as root: %s", obstacle->text, obstacle->mend);
	else if (obstacle->grade == OBSTACLE_PART)
		log_info(TAG, "%s; as root: %s", obstacle->text, obstacle->mend);
}

/* ~/.local/state is not everywhere. What cannot be made is told of by who needs it. */
static void make_parents(const char *path)
{
	char parent[PATH_MAX];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		(void)mkdir(parent, 0700);
	}
}

static int prepare(const struct rootless_options *options, struct setup *setup)
{
	const struct setup_options setup_options = {
		.runtime_directory = options->runtime_directory,
		.state_directory = options->state_directory,
		.is_rootless = true,
	};
	char error[SETUP_ERROR_SIZE] = "";
	int result;

	make_parents(options->state_directory);
	result = setup_prepare(setup, &setup_options, error);

	if (result)
		log_error(TAG, "%s", *error ? error : strerror(-result));
	return result;
}

/* Who is let in before that hears nothing of why there are none. */
static int open_namespaces(const struct rootless_options *options, struct setup *setup,
	struct namespaces *ret_namespaces)
{
	int result = namespaces_open(options->runtime_directory, ret_namespaces);
	int error;

	if (result < 0)
		return fail_namespaces(result);
	obstacles_list(NULL, tell_obstacle, NULL);
	error = setup_listen(setup);
	if (error)
		log_error(TAG, "%s/socket takes no connections: %s", options->runtime_directory,
			strerror(-error));
	return error;
}

int rootless_run(const struct rootless_options *options)
{
	/* Not closed: the pause process looks at the directory's lock when its last holder goes,
	 * and that is let go of by then. */
	struct namespaces namespaces;
	struct setup setup;
	int result;

	if (geteuid() == 0) {
		log_error(TAG, "option --rootless is for ordinary users; root starts the broker "
			       "without it");
		return -EINVAL;
	}
	umask(077);
	setup_init(&setup);
	result = prepare(options, &setup);
	if (!result) {
		result = open_namespaces(options, &setup, &namespaces);
		if (!result)
			result = supervise(options, &setup, &namespaces);
	}
	/* Without the lock they are those of a broker that serves. */
	if (result < 0 && setup.lock >= 0)
		remains_remove_empty(options->runtime_directory);
	setup_done(&setup);
	if (result < 0)
		(void)rmdir(options->runtime_directory);
	return result;
}

int rootless_run_priv(const char *runtime_directory, const char *state_directory, uint32_t instance)
{
	const struct priv_options options = {
		.instance = instance,
		.state_dir = state_directory,
		.runtime_dir = runtime_directory,
		.front_uid = geteuid(),
		.front_gid = getegid(),
		.listen_fd = PRIV_LISTEN_FD,
		.is_rootless = true,
	};

	prctl(PR_SET_NAME, "vmnet-priv");
	return priv_run(&options);
}
