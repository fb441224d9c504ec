#include "run/supervisor.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#define DEADLINE_MS 20000
#define CANARY_FD   5

/*
 * Each test supervises in a process of its own, the client, because supervisor_start() takes its
 * process over. All that the client starts holds the canary, a pipe's writing end: when its reader
 * sees the end, nobody is left.
 */
struct client {
	pid_t pid;
	int canary;
};

static int canary_writer;

static void run_shell(struct supervisor *supervisor, struct child *child, const char *script)
{
	char shell[] = "/bin/sh";
	char option[] = "-c";
	char *const arguments[] = {shell, option, (char *)(uintptr_t)script, NULL};
	const struct spawn_fd fds[] = {{canary_writer, CANARY_FD}};
	const struct spawn_options options = {
		.path = shell, .arguments = arguments, .fds = fds, .fds_count = 1};

	if (supervisor_run(supervisor, child, &options) < 0)
		_exit(200);
}

static struct client start_client(void (*run)(void))
{
	struct client client;
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	canary_writer = ends[1];
	client.canary = ends[0];
	client.pid = fork();
	assert_true(client.pid >= 0);
	if (client.pid == 0) {
		close(ends[0]);
		run();
		_exit(201);
	}
	close(ends[1]);
	return client;
}

static void expect_word(const struct client *client, const char *word)
{
	char text[16] = "";

	for (size_t size = 0; size < strlen(word); size++) {
		struct pollfd polled = {.fd = client->canary, .events = POLLIN};

		assert_int_equal(poll(&polled, 1, DEADLINE_MS), 1);
		assert_int_equal(read(client->canary, text + size, 1), 1);
	}
	assert_string_equal(text, word);
}

static void expect_nobody_left(struct client *client)
{
	struct pollfd polled = {.fd = client->canary, .events = POLLIN};
	char byte;

	assert_int_equal(poll(&polled, 1, DEADLINE_MS), 1);
	assert_int_equal(read(client->canary, &byte, 1), 0);
	close(client->canary);
}

static void expect_exit(struct client *client, int status)
{
	int waited;

	expect_nobody_left(client);
	assert_int_equal(waitpid(client->pid, &waited, 0), client->pid);
	assert_true(WIFEXITED(waited));
	assert_int_equal(WEXITSTATUS(waited), status);
}

/* The number of the event, behind which the exit statuses of the command stand. */
#define EVENT_STATUS(event) (100 + (int)(event))

static void finish_and_exit(struct supervisor *supervisor, int status)
{
	close(canary_writer);
	_exit(supervisor_finish(supervisor) == 0 ? status : 202);
}

static void supervise_command(const char *script)
{
	struct supervisor supervisor;

	if (supervisor_start(&supervisor) < 0)
		_exit(203);
	run_shell(&supervisor, &supervisor.command, script);
	close(canary_writer);
	if (supervisor_wait(&supervisor, -1, -1) == SUPERVISOR_COMMAND_ENDED)
		finish_and_exit(&supervisor, supervisor_exit_status(supervisor.command.status));
	finish_and_exit(&supervisor, EVENT_STATUS(SUPERVISOR_STOPPED));
}

static void run_exit_seven(void)
{
	supervise_command("exit 7");
}

static void test_exit_status(void **state)
{
	struct client client = start_client(run_exit_seven);

	expect_exit(&client, 7);
}

static void run_killed_command(void)
{
	supervise_command("kill -KILL $$");
}

static void test_command_that_is_killed(void **state)
{
	struct client client = start_client(run_killed_command);

	expect_exit(&client, 128 + SIGKILL);
}

static void run_parent_of_orphans(void)
{
	supervise_command("sleep 1000 & (sleep 1000 & sleep 1000) & exit 3");
}

static void test_orphans_end_with_the_command(void **state)
{
	struct client client = start_client(run_parent_of_orphans);

	expect_exit(&client, 3);
}

/* Says that it is ready only when TERM does nothing to it any more. */
static void run_stubborn_command(void)
{
	supervise_command("trap '' TERM; echo ready >&5; while :; do sleep 1000; done");
}

static void test_stop_kills_at_last(void **state)
{
	struct client client = start_client(run_stubborn_command);

	expect_word(&client, "ready\n");
	assert_int_equal(kill(client.pid, SIGTERM), 0);
	expect_exit(&client, EVENT_STATUS(SUPERVISOR_STOPPED));
}

static void run_tree(void)
{
	supervise_command("sleep 1000 & (sleep 1000 & sleep 1000) & echo ready >&5; wait");
}

static void test_each_stop_signal(void **state)
{
	static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

	for (size_t i = 0; i < array_length(numbers); i++) {
		struct client client = start_client(run_tree);

		expect_word(&client, "ready\n");
		assert_int_equal(kill(client.pid, numbers[i]), 0);
		expect_exit(&client, EVENT_STATUS(SUPERVISOR_STOPPED));
	}
}

static void kill_client(struct client *client)
{
	int status;

	expect_word(client, "ready\n");
	assert_int_equal(kill(client->pid, SIGKILL), 0);
	assert_int_equal(waitpid(client->pid, &status, 0), client->pid);
	assert_true(WIFSIGNALED(status));
	expect_nobody_left(client);
}

/* A group lives as long as anybody is in it, the guard too. */
static void expect_group_gone(pid_t group)
{
	int64_t deadline_ms = supervisor_now_ms() + DEADLINE_MS;

	while (kill(-group, 0) == 0) {
		assert_true(supervisor_now_ms() < deadline_ms);
		(void)poll(NULL, 0, 10);
	}
	assert_int_equal(errno, ESRCH);
}

static void test_killed_client_leaves_nothing(void **state)
{
	struct client client = start_client(run_tree);

	kill_client(&client);
	expect_group_gone(client.pid);
}

static void test_killed_client_leaves_nothing_stubborn(void **state)
{
	struct client client = start_client(run_stubborn_command);

	kill_client(&client);
	expect_group_gone(client.pid);
}

static void run_helper_that_ends(void)
{
	struct supervisor supervisor;
	enum supervisor_event event;

	if (supervisor_start(&supervisor) < 0)
		_exit(203);
	run_shell(&supervisor, &supervisor.command, "sleep 1000");
	run_shell(&supervisor, &supervisor.helper, "exit 1");
	event = supervisor_wait(&supervisor, -1, -1);
	if (event == SUPERVISOR_HELPER_ENDED &&
		supervisor_exit_status(supervisor.helper.status) == 1)
		/* Told once. */
		event = supervisor_wait(&supervisor, -1, supervisor_now_ms());
	finish_and_exit(&supervisor, EVENT_STATUS(event));
}

static void test_end_of_the_helper_is_told_once(void **state)
{
	struct client client = start_client(run_helper_that_ends);

	expect_exit(&client, EVENT_STATUS(SUPERVISOR_TIMED_OUT));
}

/* Both are zombies before the supervisor looks, the helper first. */
static void run_both_end(void)
{
	struct supervisor supervisor;
	siginfo_t info;

	if (supervisor_start(&supervisor) < 0)
		_exit(203);
	run_shell(&supervisor, &supervisor.helper, "exit 0");
	waitid(P_PID, (id_t)supervisor.helper.pid, &info, WEXITED | WNOWAIT);
	run_shell(&supervisor, &supervisor.command, "exit 5");
	waitid(P_PID, (id_t)supervisor.command.pid, &info, WEXITED | WNOWAIT);
	finish_and_exit(&supervisor, EVENT_STATUS(supervisor_wait(&supervisor, -1, -1)));
}

static void test_end_of_the_command_comes_first(void **state)
{
	struct client client = start_client(run_both_end);

	expect_exit(&client, EVENT_STATUS(SUPERVISOR_COMMAND_ENDED));
}

/*
 * A helper alone is no reason to signal the whole group, in which others may be: here the test's
 * own client stands for them, whose handler would tell.
 */
static void exit_by_term(int signal_number)
{
	_exit(208);
}

static void run_helper_left(void)
{
	struct supervisor supervisor;
	sigset_t term;

	if (supervisor_start(&supervisor) < 0)
		_exit(203);
	run_shell(&supervisor, &supervisor.helper, "exec sleep 1000");
	run_shell(&supervisor, &supervisor.command, "exit 0");
	if (supervisor_wait(&supervisor, -1, -1) != SUPERVISOR_COMMAND_ENDED)
		_exit(209);
	close(canary_writer);
	if (supervisor_finish(&supervisor) != 0 || supervisor.stop_signal)
		_exit(202);
	signal(SIGTERM, exit_by_term);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_UNBLOCK, &term, NULL);
	_exit(0);
}

static void test_lone_helper_is_ended_alone(void **state)
{
	struct client client = start_client(run_helper_left);

	expect_exit(&client, 0);
}

static void ignore_hangup_and_run(void)
{
	struct supervisor supervisor;

	signal(SIGHUP, SIG_IGN);
	if (supervisor_start(&supervisor) < 0)
		_exit(203);
	run_shell(&supervisor, &supervisor.command, "kill -HUP $PPID; kill -HUP $$; exit 4");
	if (supervisor_wait(&supervisor, -1, -1) == SUPERVISOR_COMMAND_ENDED)
		finish_and_exit(&supervisor, supervisor_exit_status(supervisor.command.status));
	finish_and_exit(&supervisor, EVENT_STATUS(SUPERVISOR_STOPPED));
}

static void test_nohup_is_kept(void **state)
{
	struct client client = start_client(ignore_hangup_and_run);

	expect_exit(&client, 4);
}

static void ignore_children_and_run(void)
{
	signal(SIGCHLD, SIG_IGN);
	supervise_command("exit 6");
}

/* Inherited over exec(2), it would hide the command's end. */
static void test_ignored_children_are_seen(void **state)
{
	struct client client = start_client(ignore_children_and_run);

	expect_exit(&client, 6);
}

static int terminal_master;

/* This process leads a session whose terminal is on stdin. */
static void take_terminal(void)
{
	int fd;

	if (setsid() < 0)
		_exit(204);
	fd = open(ptsname(terminal_master), O_RDWR);
	if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
		_exit(205);
	/* The test's alone, so that its end hangs up on whatever is left here. */
	close(terminal_master);
}

/* A script: runs a client in its own foreground group. */
static void run_script(void)
{
	pid_t client = fork();
	int status;

	if (client == 0)
		supervise_command("echo ready >&0; read word && test $word = hello && exit 8");
	close(canary_writer);
	if (waitpid(client, &status, 0) != client || !WIFEXITED(status))
		_exit(206);
	_exit(tcgetpgrp(STDIN_FILENO) == getpgrp() ? WEXITSTATUS(status) : 207);
}

static void run_script_on_terminal(void)
{
	take_terminal();
	run_script();
}

static void set_foreground(pid_t group)
{
	signal(SIGTTOU, SIG_IGN);
	if (tcsetpgrp(STDIN_FILENO, group) < 0)
		_exit(210);
	signal(SIGTTOU, SIG_DFL);
}

/* A shell: the script is its job, which is to stop, and goes on in the foreground then. */
static void run_job_on_terminal(void)
{
	pid_t script;
	int status;

	take_terminal();
	script = fork();
	if (script == 0) {
		setpgid(0, 0);
		set_foreground(getpid());
		run_script();
	}
	close(canary_writer);
	if (waitpid(script, &status, WUNTRACED) != script || !WIFSTOPPED(status))
		_exit(211);
	if (tcgetpgrp(STDIN_FILENO) != script)
		_exit(212);
	set_foreground(getpgrp());
	set_foreground(script);
	kill(-script, SIGCONT);
	if (waitpid(script, &status, 0) != script || !WIFEXITED(status))
		_exit(213);
	_exit(WEXITSTATUS(status));
}

static void expect_on_terminal(const char *word)
{
	char text[256];
	size_t size = 0;

	do {
		struct pollfd fd = {.fd = terminal_master, .events = POLLIN};
		ssize_t count;

		assert_int_equal(poll(&fd, 1, DEADLINE_MS), 1);
		count = read(terminal_master, text + size, sizeof(text) - 1 - size);
		assert_true(count > 0);
		size += (size_t)count;
		text[size] = '\0';
	} while (!strstr(text, word));
}

/* Who is not in the foreground can't read: the word's arrival shows that the command was. */
static void run_with_terminal(void (*run)(void), const char *typed)
{
	struct client client;

	terminal_master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(terminal_master >= 0);
	assert_int_equal(grantpt(terminal_master), 0);
	assert_int_equal(unlockpt(terminal_master), 0);
	client = start_client(run);
	expect_on_terminal("ready");
	assert_int_equal(write(terminal_master, typed, strlen(typed)), strlen(typed));
	expect_exit(&client, 8);
	close(terminal_master);
}

static void test_terminal_is_taken_and_given_back(void **state)
{
	run_with_terminal(run_script_on_terminal, "hello\n");
}

/* Else ^Z would leave nobody at the terminal. */
static void test_whole_job_is_suspended_and_continued(void **state)
{
	run_with_terminal(run_job_on_terminal, "\x1ahello\n");
}

static void test_without_a_shell_nothing_is_suspended(void **state)
{
	run_with_terminal(run_script_on_terminal, "\x1ahello\n");
}

/* Writes to a pipe that is full and stays so. */
static void write_to_full_pipe(const char *helper)
{
	struct supervisor supervisor;
	char page[4096] = {0};
	int result;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		_exit(214);
	while (write(ends[1], page, sizeof(page)) > 0)
		;
	fcntl(ends[1], F_SETFL, 0);
	if (supervisor_start(&supervisor) < 0)
		_exit(203);
	run_shell(&supervisor, &supervisor.helper, helper);
	result = supervisor_write(&supervisor, ends[1], "line\n");
	if (result != -EINTR)
		_exit(215);
	finish_and_exit(&supervisor, EVENT_STATUS(supervisor_wait(&supervisor, -1, -1)));
}

static void write_until_stopped(void)
{
	write_to_full_pipe("kill -TERM $PPID; exec sleep 1000");
}

static void write_until_helper_ends(void)
{
	write_to_full_pipe("exit 0");
}

static void test_writing_ends_with_what_happens(void **state)
{
	struct client stopped = start_client(write_until_stopped);
	struct client alone;

	expect_exit(&stopped, EVENT_STATUS(SUPERVISOR_STOPPED));
	alone = start_client(write_until_helper_ends);
	expect_exit(&alone, EVENT_STATUS(SUPERVISOR_HELPER_ENDED));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_status),
		cmocka_unit_test(test_command_that_is_killed),
		cmocka_unit_test(test_orphans_end_with_the_command),
		cmocka_unit_test(test_stop_kills_at_last),
		cmocka_unit_test(test_each_stop_signal),
		cmocka_unit_test(test_killed_client_leaves_nothing),
		cmocka_unit_test(test_killed_client_leaves_nothing_stubborn),
		cmocka_unit_test(test_end_of_the_helper_is_told_once),
		cmocka_unit_test(test_end_of_the_command_comes_first),
		cmocka_unit_test(test_lone_helper_is_ended_alone),
		cmocka_unit_test(test_nohup_is_kept),
		cmocka_unit_test(test_ignored_children_are_seen),
		cmocka_unit_test(test_terminal_is_taken_and_given_back),
		cmocka_unit_test(test_whole_job_is_suspended_and_continued),
		cmocka_unit_test(test_without_a_shell_nothing_is_suspended),
		cmocka_unit_test(test_writing_ends_with_what_happens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
