/*
 * vmnet-client: runs a VM program with a network. It gets an attachment from the broker, has
 * vmnet-helper carry its frames where the attachment needs that, runs the command, and ends
 * everything with it.
 */
#include "base/cleanup.h"
#include "base/exec-failure.h"
#include "base/log.h"
#include "client/start-broker.h"
#include "run/attach.h"
#include "run/attachment.h"
#include "run/helper-process.h"
#include "run/qemu-options.h"
#include "run/run-options.h"
#include "run/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>

#define TAG "runner"

/*
 * A helper that ends with 0 was told that its VM is gone, perhaps before the command could end by
 * itself, as a script around a VM program does.
 */
#define COMMAND_END_GRACE_MS 2000

static void close_broker(vmnet_broker_t *broker)
{
	vmnet_broker_close(broker);
}
DEFINE_CLEANUP(vmnet_broker_t, close_broker)

/* With a standard stream closed, the next fd opened would take its place, and a log line go to the
 * VM's socket. */
static void open_missing_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	fd_close(fd);
}

static void exit_at_once(int signal_number)
{
	_exit(128 + signal_number);
}

/* Until there is something to clean up, a signal ends us directly: waiting for the broker may take
 * long. */
static void exit_on_signals(void)
{
	static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
	struct sigaction action = {.sa_handler = exit_at_once};
	struct sigaction inherited;

	for (size_t i = 0; i < array_length(numbers); i++) {
		if (sigaction(numbers[i], NULL, &inherited) == 0 && numbers[i] == SIGHUP &&
			inherited.sa_handler == SIG_IGN)
			continue;
		sigaction(numbers[i], &action, NULL);
	}
}

/* What is wrong with QEMU's own words is said before anything exists, too. */
static int check_command(const struct run_options *options)
{
	char error[QEMU_MEMORY_ERROR_SIZE];
	struct qemu_memory memory;
	int result;

	if (!options->qemu || options->attach != RUN_ATTACH_VHOST_USER)
		return 0;
	result = qemu_memory_read(options->command, &memory, error);
	if (result < 0)
		log_error(TAG, "%s", error);
	return result;
}

static int make_attachment(
	vmnet_broker_t *broker, const struct run_options *options, struct attachment *attachment)
{
	char error[ATTACH_ERROR_SIZE] = "";
	int result = run_options_need_helper(options)
			     ? attach_through_helper(broker, options, attachment, error)
			     : attach_directly(broker, options, attachment, error);

	if (result < 0)
		log_error(TAG, "%s", error);
	return result;
}

/* Says to the guard first what it then makes. */
static int make_vhost_user_path(struct supervisor *supervisor, struct attachment *attachment)
{
	char directory[SOCKET_DIRECTORY_PATH_SIZE] = "";
	int result = socket_directory_choose(directory);

	if (result == 0)
		result = guard_watch_directory(&supervisor->guard, directory);
	if (result == 0)
		result = socket_directory_make(directory, attachment->vhost_user_path);
	if (result < 0)
		log_error(TAG, "can't make a directory for the vhost-user socket, %s: %s",
			directory, strerror(-result));
	return result;
}

/* Fills in the rest of the attachment, which its line has. */
static int start_helper(struct supervisor *supervisor, const struct run_options *options,
	struct attachment *attachment)
{
	struct helper_arguments arguments;
	char error[HELPER_ERROR_SIZE] = "";
	char line[HELPER_LINE_SIZE];
	cleanup_fd int output = -1;
	int result;

	if (attachment->attach == RUN_ATTACH_VHOST_USER) {
		result = make_vhost_user_path(supervisor, attachment);
		if (result < 0)
			return result;
	}
	helper_arguments_make(options,
		attachment->vhost_user_path[0] ? attachment->vhost_user_path : NULL, &arguments);
	result = helper_process_start(
		supervisor, &arguments, take_fd(&attachment->helper_socket), &output, error);
	if (result == 0)
		result = helper_process_wait_ready(supervisor, output, line, error);
	if (result < 0) {
		if (error[0])
			log_error(TAG, "%s", error);
		return result;
	}
	result = attachment_read_line(attachment, line);
	if (result < 0) {
		log_error(TAG,
			"vmnet-helper's line is not understood: %s; both must be of one "
			"version",
			line);
		return result;
	}
	attachment->line = strdup(line);
	if (!attachment->line) {
		log_error(TAG, "out of memory");
		return -ENOMEM;
	}
	return 0;
}

static int spawn_command(
	struct supervisor *supervisor, const struct attachment *attachment, char **command)
{
	struct spawn_fd fds[2 * RUN_QUEUES_MAX];
	size_t count = attachment->fds_count;
	struct spawn_options options = {
		.path = command[0],
		.arguments = command,
		.fds = fds,
		.fds_count = count + attachment->vhosts_count,
	};

	for (size_t i = 0; i < count; i++)
		fds[i] = (struct spawn_fd){attachment->fds[i], ATTACHMENT_FIRST_FD + (int)i};
	for (size_t i = 0; i < attachment->vhosts_count; i++)
		fds[count + i] = (struct spawn_fd){
			attachment->vhosts[i], ATTACHMENT_FIRST_FD + (int)(count + i)};
	return supervisor_run(supervisor, &supervisor->command, &options);
}

static int run_command(struct supervisor *supervisor, const struct run_options *options,
	struct attachment *attachment)
{
	cleanup_free char **extended = NULL;
	char **command = options->command;
	int result = attachment_set_environment(attachment);

	if (result == 0 && options->qemu) {
		char error[QEMU_OPTIONS_ERROR_SIZE];

		result = qemu_options_append(attachment, command, &extended, error);
		command = extended;
	}
	if (result == 0)
		result = spawn_command(supervisor, attachment, command);
	attachment_close_fds(attachment);
	return result;
}

static int report_unrunnable(const char *command, int error)
{
	char text[EXEC_FAILURE_ERROR_SIZE];
	int status = exec_failure_explain(command, error, text);

	log_error(TAG, "%s", text);
	return status;
}

static void report_helper_end(int status)
{
	if (WIFSIGNALED(status))
		log_error(TAG, "vmnet-helper was killed by signal %d: ending the command",
			WTERMSIG(status));
	else
		log_error(TAG, "vmnet-helper ended with exit status %d: ending the command",
			WEXITSTATUS(status));
}

/* Waits until the first of them ends. Returns the exit status of this program. */
static int supervise(struct supervisor *supervisor)
{
	enum supervisor_event event = supervisor_wait(supervisor, -1, -1);

	if (event == SUPERVISOR_HELPER_ENDED) {
		int status = supervisor->helper.status;

		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			event = supervisor_wait(
				supervisor, -1, supervisor_now_ms() + COMMAND_END_GRACE_MS);
		if (event != SUPERVISOR_COMMAND_ENDED && event != SUPERVISOR_STOPPED)
			report_helper_end(status);
	}
	if (event == SUPERVISOR_STOPPED)
		return 128 + supervisor->stop_signal;
	if (event == SUPERVISOR_COMMAND_ENDED)
		return supervisor_exit_status(supervisor->command.status);
	return EXIT_FAILURE;
}

static int run_children(struct supervisor *supervisor, vmnet_broker_t *broker,
	const struct run_options *options, struct attachment *attachment)
{
	cleanup_with(close_broker) vmnet_broker_t *held = broker;
	int result = 0;

	if (run_options_need_helper(options))
		result = start_helper(supervisor, options, attachment);
	if (supervisor->stop_signal)
		return 128 + supervisor->stop_signal;
	if (result < 0)
		return EXIT_FAILURE;
	/* The interface holds the network from now on; the connection would only count against the
	 * user's limit. */
	if (!attachment->held_by_connection)
		vmnet_broker_close(take_ptr(held));
	result = supervisor_write(supervisor, STDOUT_FILENO, attachment->line);
	if (result == -EINTR)
		return supervise(supervisor);
	/* Who closed our stdout does not want the line: no reason to keep the VM from running. */
	if (result < 0)
		log_warn(TAG, "can't write to stdout: %s", strerror(-result));
	result = run_command(supervisor, options, attachment);
	if (result < 0)
		return report_unrunnable(options->command[0], result);
	log_debug(
		TAG, "command %s runs as process %d", options->command[0], supervisor->command.pid);
	return supervise(supervisor);
}

/* What start_broker() wants the user to know. */
static void log_notes(char *notes)
{
	const char *line;

	while ((line = strsep(&notes, "\n")))
		if (*line)
			log_info(TAG, "%s", line);
}

static int run(const struct run_options *options)
{
	cleanup_with(close_broker) vmnet_broker_t *broker = NULL;
	cleanup_attachment struct attachment attachment;
	char note[START_BROKER_NOTE_SIZE];
	char error[START_BROKER_ERROR_SIZE] = "";
	struct supervisor supervisor;
	int result;
	int left;

	attachment_init(&attachment);
	broker = start_broker(note, error);
	if (!broker) {
		log_error(TAG, "%s", error);
		return EXIT_FAILURE;
	}
	log_notes(note);
	if (make_attachment(broker, options, &attachment) < 0)
		return EXIT_FAILURE;
	result = supervisor_start(&supervisor);
	if (result < 0) {
		log_error(TAG, "can't prepare for the command: %s", strerror(-result));
		return EXIT_FAILURE;
	}
	result = run_children(&supervisor, take_ptr(broker), options, &attachment);
	left = supervisor_finish(&supervisor);
	if (left > 0)
		log_warn(TAG, "%d processes of the command could not be ended", left);
	return result;
}

int main(int argc, char **argv)
{
	struct run_options options;
	char error[OPTIONS_ERROR_SIZE];

	open_missing_stdio();
	if (run_options_parse(argc, argv, &options, error) < 0) {
		log_error(TAG, "%s", error);
		return EXIT_FAILURE;
	}
	if (options.show_help) {
		run_options_print_help(stdout);
		return EXIT_SUCCESS;
	}
	if (options.show_version) {
		options_print_version(stdout);
		return EXIT_SUCCESS;
	}
	if (!options.command[0]) {
		log_error(TAG, "no command to run: put it behind the options");
		run_options_print_help(stderr);
		return EXIT_FAILURE;
	}
	log_set_verbose(options.verbose);
	if (check_command(&options) < 0)
		return EXIT_FAILURE;
	exit_on_signals();
	return run(&options);
}
