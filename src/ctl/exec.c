/* vmnetctl exec: a command where the networks are. */
#include "base/exec-failure.h"
#include "base/log.h"
#include "base/user-paths.h"
#include "ctl/broker-call.h"
#include "ctl/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REASON_SIZE 512

struct exec_options {
	const char *network;
	bool root;
	bool verbose;
};

static struct exec_options *options_of(void *context)
{
	return ((struct ctl *)context)->options;
}

static int parse_network(void *context, const char *argument, char *error)
{
	options_of(context)->network = argument;
	return 0;
}

static int parse_root(void *context, const char *argument, char *error)
{
	options_of(context)->root = true;
	return 0;
}

static int parse_verbose(void *context, const char *argument, char *error)
{
	options_of(context)->verbose = true;
	return 0;
}

static const struct option_entry options_table[] = {
	{"network", 0, "NAME", "whose names resolve; else those of the one that runs",
		parse_network},
	{"root", 0, NULL, "as root of the networks' namespaces, for tcpdump(8) and its like",
		parse_root},
	{"verbose", 'v', NULL, "say where the command runs", parse_verbose},
};

/* --- which broker --- */

/* Connects to the broker that every command would ask, and says, which no handle does, where that
 * is. NULL, with path empty: nobody answers. */
static vmnet_broker_t *connect_to(const char *candidate, char path[PATH_MAX])
{
	char reason[REASON_SIZE];
	vmnet_broker_status_t status;
	vmnet_broker_t *broker = vmnet_broker_connect(candidate, &status, reason, sizeof(reason));

	snprintf(path, PATH_MAX, "%s", broker ? candidate : "");
	return broker;
}

static vmnet_broker_t *find_broker(const struct ctl *ctl, char path[PATH_MAX])
{
	const char *given = ctl->socket ? ctl->socket : getenv("VMNET_BROKER_SOCKET");
	char own[PATH_MAX];
	vmnet_broker_t *broker;
	size_t length;

	if (given && *given)
		return connect_to(given, path);
	broker = connect_to(SYSTEM_BROKER_SOCKET, path);
	if (broker || user_runtime_directory(own, sizeof(own)) < 0)
		return broker;
	length = strlen(own);
	snprintf(own + length, sizeof(own) - length, "/socket");
	return connect_to(own, path);
}

static void cut_to_directory(char path[PATH_MAX])
{
	char *slash = strrchr(path, '/');

	if (!slash)
		snprintf(path, PATH_MAX, ".");
	else
		slash[slash == path] = '\0';
}

/* An ordinary user's own broker keeps its networks in namespaces; the system's does not. */
static bool is_rootless(const char *runtime_directory)
{
	struct stat status;

	return geteuid() != 0 && stat(runtime_directory, &status) == 0 &&
	       status.st_uid == geteuid();
}

/* --- which network's names --- */

static const char *text_of(const json_t *network, const char *member)
{
	return json_string_value(json_object_get(network, member));
}

static bool can_be_asked(const json_t *network)
{
	return json_is_true(json_object_get(network, "running")) && text_of(network, "gateway") &&
	       text_of(network, "domain");
}

/* The one that runs; of several the one of mode shared, which knows the world's names, too. */
static const json_t *choose_network(const json_t *networks)
{
	const json_t *only = NULL, *only_shared = NULL, *network;
	size_t count = 0, shared_count = 0, i;

	json_array_foreach((json_t *)(uintptr_t)networks, i, network)
	{
		const char *mode = text_of(network, "mode");

		if (!can_be_asked(network))
			continue;
		only = network;
		count++;
		if (mode && strcmp(mode, "shared") == 0) {
			only_shared = network;
			shared_count++;
		}
	}
	if (count == 1)
		return only;
	return shared_count == 1 ? only_shared : NULL;
}

static const json_t *find_network(const json_t *networks, const char *name)
{
	const json_t *network;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)networks, i, network)
	{
		const char *other = text_of(network, "name");

		if (other && strcmp(other, name) == 0)
			return network;
	}
	return NULL;
}

/* NULL, with *ret_status 0: the host's names are used; otherwise what is wrong has been said. */
static const json_t *pick_network(
	const struct exec_options *options, const json_t *networks, int *ret_status)
{
	const json_t *network;

	*ret_status = 0;
	if (!options->network)
		return choose_network(networks);
	network = find_network(networks, options->network);
	if (network && can_be_asked(network))
		return network;
	*ret_status = 1;
	if (network)
		log_error(CTL_TAG, "exec: network \"%s\" does not run; start a VM on it first",
			options->network);
	else
		log_error(CTL_TAG, "exec: there is no network \"%s\"; vmnetctl networks lists them",
			options->network);
	return NULL;
}

/* --- the command --- */

static int run_program(char **arguments)
{
	char text[EXEC_FAILURE_ERROR_SIZE];
	int error, status;

	execvp(*arguments, arguments);
	error = -errno;
	status = exec_failure_explain(*arguments, error, text);
	log_error(CTL_TAG, "exec: %s", text);
	return status;
}

/* The command keeps the namespaces while it runs: brokers that come and go use them again. */
static void give_hold(const struct namespaces *namespaces)
{
	fcntl(namespaces->hold, F_SETFD, 0);
}

static int run_inside(const struct exec_options *options, struct namespaces *namespaces,
	const char *runtime_directory, const json_t *network, char **arguments)
{
	const struct inside_options inside = {
		.runtime_directory = runtime_directory,
		.name_server = network ? text_of(network, "gateway") : NULL,
		.domain = network ? text_of(network, "domain") : NULL,
		.as_root = options->root,
	};
	char text[INSIDE_ERROR_SIZE] = "";
	int result = inside_enter(namespaces, &inside, text);

	if (result < 0) {
		log_error(CTL_TAG, "exec: %s", text);
		return 1;
	}
	if (result > 0)
		log_warn(CTL_TAG, "exec: names of VMs do not resolve: %s", text);
	else if (options->verbose)
		log_info(CTL_TAG, "exec: in the namespaces of the broker at %s, with names of %s",
			runtime_directory, network ? text_of(network, "name") : "the host only");
	give_hold(namespaces);
	return run_program(arguments);
}

static int report_no_namespaces(const char *runtime_directory, int error)
{
	if (error == -EPERM)
		log_error(CTL_TAG, "exec: the networks at %s are another user's: run this as him",
			runtime_directory);
	else
		log_error(CTL_TAG,
			"exec: the namespaces of the broker at %s are not to be found (%s); it may "
			"be making them again: try once more",
			runtime_directory, strerror(-error));
	return 1;
}

static int run_at(const struct exec_options *options, const char *runtime_directory,
	const json_t *networks, char **arguments)
{
	cleanup_namespaces struct namespaces namespaces;
	const json_t *network;
	int error, status;

	network = pick_network(options, networks, &status);
	namespaces_init(&namespaces);
	if (status)
		return status;
	error = namespaces_open_pause(runtime_directory, &namespaces);
	if (!error)
		return run_inside(options, &namespaces, runtime_directory, network, arguments);
	if (error != -ENOENT || is_rootless(runtime_directory))
		return report_no_namespaces(runtime_directory, error);
	if (options->verbose)
		log_info(CTL_TAG,
			"exec: the broker at %s is the system's, whose networks are the host's "
			"own: "
			"the command runs where it would without this",
			runtime_directory);
	return run_program(arguments);
}

static int run(struct ctl *ctl, size_t arguments_count, char **arguments)
{
	cleanup_ctl_json json_t *answer = NULL;
	cleanup_broker vmnet_broker_t *broker = NULL;
	char path[PATH_MAX];

	if (arguments_count == 0) {
		log_error(CTL_TAG, "exec: say which command: vmnetctl exec -- ssh web");
		return 1;
	}
	broker = find_broker(ctl, path);
	if (!broker) {
		/* Once more, to say what was tried. */
		vmnet_broker_close(ctl_connect(ctl));
		return 1;
	}
	answer = ctl_call_pages(broker, &ctl_networks);
	if (!answer)
		return 1;
	cut_to_directory(path);
	return run_at(ctl->options, path, json_object_get(answer, "networks"), arguments);
}

const struct command exec_command = {
	.name = "exec",
	.help = "run a command where a rootless broker's networks are",
	.usage = "[options] [--] COMMAND [ARGUMENTS]",
	.options = options_table,
	.options_count = array_length(options_table),
	.options_size = sizeof(struct exec_options),
	.takes_program = true,
	.run = run,
};
