#include "run/helper-process.h"

#include "base/cleanup.h"
#include "base/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define HELPER_FD 3

static void add_word(struct helper_arguments *arguments, size_t *count, const char *word)
{
	assert(*count + 1 < HELPER_ARGUMENTS_MAX);
	/* exec's argument vector is not const for reasons of history only: execve(2). */
	arguments->words[(*count)++] = (char *)(uintptr_t)word;
}

static void add_option(
	struct helper_arguments *arguments, size_t *count, const char *name, const char *value)
{
	add_word(arguments, count, name);
	add_word(arguments, count, value);
}

static void add_number(struct helper_arguments *arguments, size_t *count, const char *name,
	char text[12], uint32_t number)
{
	snprintf(text, 12, "%u", number);
	add_option(arguments, count, name, text);
}

static void add_interface(
	const struct interface_options *options, struct helper_arguments *arguments, size_t *count)
{
	const struct {
		const char *name, *value;
	} texts[] = {
		{"--network", options->network},
		{"--operation-mode", options->operation_mode},
		{"--shared-interface", options->shared_interface},
		{"--start-address", options->start_address},
		{"--end-address", options->end_address},
		{"--subnet-mask", options->subnet_mask},
		{"--hostname", options->hostname},
	};

	for (size_t i = 0; i < array_length(texts); i++)
		if (texts[i].value)
			add_option(arguments, count, texts[i].name, texts[i].value);
	if (options->has_interface_id) {
		uuid_to_text(options->interface_id, arguments->interface_id);
		add_option(arguments, count, "--interface-id", arguments->interface_id);
	}
	if (options->has_mac) {
		mac_to_text(options->mac, arguments->mac);
		add_option(arguments, count, "--mac", arguments->mac);
	}
	if (options->isolation)
		add_word(arguments, count, "--enable-isolation");
}

void helper_arguments_make(const struct run_options *options, const char *vhost_user_path,
	struct helper_arguments *arguments)
{
	size_t count = 0;

	*arguments = (struct helper_arguments){0};
	add_word(arguments, &count, "vmnet-helper");
	if (vhost_user_path)
		add_option(arguments, &count, "--vhost-user", vhost_user_path);
	else
		add_word(arguments, &count, "--fd=3");
	if (options->queues)
		add_number(arguments, &count, "--queues", arguments->queues, options->queues);
	add_interface(&options->interface, arguments, &count);
	if (options->enable_tso)
		add_word(arguments, &count, "--enable-tso");
	if (options->enable_checksum_offload)
		add_word(arguments, &count, "--enable-checksum-offload");
	if (options->vnet_hdr)
		add_word(arguments, &count, "--vnet-hdr");
	if (options->stats_interval_s)
		add_number(arguments, &count, "--stats-interval", arguments->stats_interval,
			options->stats_interval_s);
	if (options->verbose)
		add_word(arguments, &count, "--verbose");
}

/* Never by PATH: what runs as our other half is what was installed with us. */
static int find_helper(char path[PATH_MAX])
{
	static const char *const places[] = {
		"/vmnet-helper", "/../helper/vmnet-helper", /* where the build leaves it */
	};
	char directory[PATH_MAX];
	int error = spawn_find_own_directory(directory, sizeof(directory));

	if (error)
		return error;
	for (size_t i = 0; i < array_length(places); i++) {
		if (snprintf(path, PATH_MAX, "%s%s", directory, places[i]) >= PATH_MAX)
			return -ENAMETOOLONG;
		if (access(path, X_OK) == 0)
			return 0;
	}
	snprintf(path, PATH_MAX, "%s", directory);
	return -ENOENT;
}

static int run_helper(struct supervisor *supervisor, const char *path,
	const struct helper_arguments *arguments, int vm_socket, int output)
{
	cleanup_fd int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct spawn_fd fds[] = {
		/* The terminal's input is for the command alone. */
		{nothing, STDIN_FILENO},
		{output, STDOUT_FILENO},
		{vm_socket, HELPER_FD},
	};
	struct spawn_options options = {
		.path = path,
		.arguments = arguments->words,
		.fds = fds,
		.fds_count = array_length(fds) - (vm_socket < 0),
	};

	if (nothing < 0)
		return -errno;
	return supervisor_run(supervisor, &supervisor->helper, &options);
}

int helper_process_start(struct supervisor *supervisor, const struct helper_arguments *arguments,
	int vm_socket, int *ret_output, char *error)
{
	cleanup_fd int owned_socket = vm_socket;
	cleanup_fd int reader = -1;
	cleanup_fd int writer = -1;
	char path[PATH_MAX];
	int ends[2];
	int result;

	result = find_helper(path);
	if (result < 0) {
		snprintf(error, HELPER_ERROR_SIZE,
			"no vmnet-helper beside this program, in %.150s: install it there (%s)",
			path, strerror(-result));
		return result;
	}
	if (pipe2(ends, O_CLOEXEC) < 0) {
		result = -errno;
		snprintf(error, HELPER_ERROR_SIZE, "can't make a pipe: %s", strerror(-result));
		return result;
	}
	reader = ends[0];
	writer = ends[1];
	result = run_helper(supervisor, path, arguments, owned_socket, writer);
	if (result < 0) {
		snprintf(error, HELPER_ERROR_SIZE, "can't run %.150s: %s", path, strerror(-result));
		return result;
	}
	*ret_output = take_fd(&reader);
	return 0;
}

static void describe_end(const struct child *helper, char *error)
{
	const char *text = WIFEXITED(helper->status) ? "exit status" : "signal";
	int number =
		WIFEXITED(helper->status) ? WEXITSTATUS(helper->status) : WTERMSIG(helper->status);

	snprintf(error, HELPER_ERROR_SIZE,
		"vmnet-helper ended before it was ready (%s %d); what it logged says why", text,
		number);
}

/* Returns 1 with a whole line, 0 when more is to come or (*ended) nothing will, or negative errno.
 */
static int read_line(int output, char *line, size_t *size, bool *ended)
{
	ssize_t count = read(output, line + *size, HELPER_LINE_SIZE - 1 - *size);
	char *newline;

	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	*ended = count == 0;
	*size += (size_t)count;
	line[*size] = '\0';
	newline = strchr(line, '\n');
	if (newline) {
		newline[1] = '\0';
		return 1;
	}
	return *size == HELPER_LINE_SIZE - 1 ? -EMSGSIZE : 0;
}

int helper_process_wait_ready(struct supervisor *supervisor, int output, char *line, char *error)
{
	int64_t deadline_ms = supervisor_now_ms() + HELPER_READY_MS;
	bool ended = false;
	size_t size = 0;
	int result;

	line[0] = '\0';
	for (;;) {
		switch (supervisor_wait(supervisor, ended ? -1 : output, deadline_ms)) {
		case SUPERVISOR_STOPPED:
			return -EINTR;
		case SUPERVISOR_COMMAND_ENDED: /* it does not run yet */
		case SUPERVISOR_HELPER_ENDED:
			describe_end(&supervisor->helper, error);
			return -ECHILD;
		case SUPERVISOR_TIMED_OUT:
			snprintf(error, HELPER_ERROR_SIZE,
				"vmnet-helper was not ready after %d seconds; try again with "
				"--verbose",
				HELPER_READY_MS / 1000);
			return -ETIMEDOUT;
		case SUPERVISOR_READABLE:
			break;
		}
		result = read_line(output, line, &size, &ended);
		if (result < 0) {
			snprintf(error, HELPER_ERROR_SIZE, "vmnet-helper's output: %s",
				strerror(-result));
			return result;
		}
		if (result > 0)
			return 0;
	}
}
