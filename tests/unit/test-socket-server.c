#include "helper/socket-server.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	char directory[32];
	char path[SOCKET_SERVER_PATH_MAX + 1];
	char lock[SOCKET_SERVER_PATH_MAX + 6];
	char reason[SOCKET_SERVER_REASON_SIZE];
	struct socket_server server;
	struct direction_counters counters;
};

static int make_fixture(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	strcpy(fixture->directory, "/tmp/test-socket-server-XXXXXX");
	if (!mkdtemp(fixture->directory))
		return -1;
	snprintf(fixture->path, sizeof(fixture->path), "%s/vm.sock", fixture->directory);
	snprintf(fixture->lock, sizeof(fixture->lock), "%s.lock", fixture->path);
	socket_server_init(&fixture->server);
	*state = fixture;
	return 0;
}

/* Fails when anything was left behind. */
static int remove_fixture(void **state)
{
	struct fixture *fixture = *state;
	int result;

	socket_server_close(&fixture->server);
	result = rmdir(fixture->directory);
	free(fixture);
	return result;
}

static int open_server(struct fixture *fixture)
{
	return socket_server_open(&fixture->server, fixture->path, SOCK_DGRAM, fixture->reason);
}

static int meet(struct fixture *fixture)
{
	return socket_server_meet_client(&fixture->server, &fixture->counters, fixture->reason);
}

static mode_t mode_of(const char *path)
{
	struct stat status;

	assert_int_equal(lstat(path, &status), 0);
	return status.st_mode;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(address.sun_path, path);
	return address;
}

/* name NULL: a client without an address. */
static int connect_client(const struct fixture *fixture, const char *name)
{
	struct sockaddr_un server = address_of(fixture->path);
	int client = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char path[sizeof(server.sun_path)];

	if (name) {
		struct sockaddr_un own;

		snprintf(path, sizeof(path), "%s/%s", fixture->directory, name);
		own = address_of(path);
		assert_int_equal(bind(client, (struct sockaddr *)&own, sizeof(own)), 0);
	}
	assert_int_equal(connect(client, (struct sockaddr *)&server, sizeof(server)), 0);
	return client;
}

static void close_client(const struct fixture *fixture, int client, const char *name)
{
	char path[SOCKET_SERVER_PATH_MAX + 1];

	close(client);
	snprintf(path, sizeof(path), "%s/%s", fixture->directory, name);
	assert_int_equal(unlink(path), 0);
}

static void test_opens_and_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	mode_t old = umask(0);

	assert_int_equal(open_server(fixture), 0);
	umask(old);
	assert_int_equal(mode_of(fixture->path), S_IFSOCK | 0600);
	assert_int_equal(mode_of(fixture->lock), S_IFREG | 0600);
	socket_server_close(&fixture->server);
	assert_false(exists(fixture->path));
	assert_false(exists(fixture->lock));
}

static void test_second_server_is_refused_and_harms_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct socket_server second;
	int client;

	assert_int_equal(open_server(fixture), 0);
	socket_server_init(&second);
	assert_int_equal(socket_server_open(&second, fixture->path, SOCK_DGRAM, fixture->reason),
		-EWOULDBLOCK);
	assert_non_null(strstr(fixture->reason, fixture->path));
	socket_server_close(&second);
	assert_true(exists(fixture->path));
	assert_true(exists(fixture->lock));
	client = connect_client(fixture, "client");
	assert_int_equal(send(client, "VFKT", 4, 0), 4);
	assert_int_equal(meet(fixture), 1);
	close_client(fixture, client, "client");
}

/* What a helper killed with SIGKILL leaves. */
static void test_leftovers_are_taken_over(void **state)
{
	struct fixture *fixture = *state;
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(open_server(fixture) == 0 ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(exists(fixture->path));
	assert_true(exists(fixture->lock));
	assert_int_equal(open_server(fixture), 0);
}

static void test_what_is_no_dead_socket_is_left_alone(void **state)
{
	struct fixture *fixture = *state;
	struct sockaddr_un address = address_of(fixture->path);
	int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int file = open(fixture->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_int_equal(open_server(fixture), -EADDRINUSE);
	socket_server_close(&fixture->server);
	assert_int_equal(mode_of(fixture->path), S_IFREG | 0600);
	assert_false(exists(fixture->lock));
	close(file);
	unlink(fixture->path);

	assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(other, 1), 0);
	assert_int_equal(open_server(fixture), -EADDRINUSE);
	socket_server_close(&fixture->server);
	assert_true(exists(fixture->path));
	close(other);
	unlink(fixture->path);
}

/* Somebody cleaned up under us and another program is at the path now. */
static void test_only_own_files_are_removed(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(open_server(fixture), 0);
	assert_int_equal(unlink(fixture->path), 0);
	assert_int_equal(unlink(fixture->lock), 0);
	close(open(fixture->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	close(open(fixture->lock, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	socket_server_close(&fixture->server);
	assert_true(exists(fixture->path));
	assert_true(exists(fixture->lock));
	unlink(fixture->path);
	unlink(fixture->lock);
}

static void test_lock_is_no_link(void **state)
{
	struct fixture *fixture = *state;
	char victim[SOCKET_SERVER_PATH_MAX + 1];

	snprintf(victim, sizeof(victim), "%s/victim", fixture->directory);
	assert_int_equal(symlink(victim, fixture->lock), 0);
	assert_int_equal(open_server(fixture), -ELOOP);
	assert_false(exists(victim));
	unlink(fixture->lock);
}

static void test_longest_path(void **state)
{
	struct fixture *fixture = *state;
	size_t length = strlen(fixture->directory);

	memset(fixture->path + length, 'x', SOCKET_SERVER_PATH_MAX - length);
	fixture->path[length] = '/';
	fixture->path[SOCKET_SERVER_PATH_MAX] = '\0';
	assert_int_equal(open_server(fixture), 0);
	assert_int_equal(mode_of(fixture->path), S_IFSOCK | 0600);
	close(connect_client(fixture, NULL));
}

static void test_magic_is_swallowed_and_nothing_else(void **state)
{
	static const char *const first[] = {"VFKT", "VFKX", "VFKTx", "VFK", "a first short frame"};

	for (size_t i = 0; i < array_length(first); i++) {
		struct fixture *fixture = *state;
		ssize_t size = (ssize_t)strlen(first[i]);
		char bytes[64] = "";
		int client;

		assert_int_equal(open_server(fixture), 0);
		client = connect_client(fixture, "client");
		assert_int_equal(meet(fixture), 0);
		assert_int_equal(send(client, first[i], (size_t)size, 0), size);
		assert_int_equal(send(client, "second", 6, 0), 6);
		assert_int_equal(meet(fixture), 1);
		assert_string_equal(fixture->reason, "");
		if (i > 0) {
			assert_int_equal(
				recv(fixture->server.socket, bytes, sizeof(bytes), MSG_DONTWAIT),
				size);
			assert_memory_equal(bytes, first[i], size);
		}
		assert_int_equal(
			recv(fixture->server.socket, bytes, sizeof(bytes), MSG_DONTWAIT), 6);
		assert_int_equal(send(fixture->server.socket, "back", 4, 0), 4);
		assert_int_equal(recv(client, bytes, sizeof(bytes), MSG_DONTWAIT), 4);
		assert_int_equal(fixture->counters.drops, 0);
		close_client(fixture, client, "client");
		socket_server_close(&fixture->server);
	}
}

static void test_client_without_address_is_passed_over(void **state)
{
	struct fixture *fixture = *state;
	int nameless, client;

	assert_int_equal(open_server(fixture), 0);
	nameless = connect_client(fixture, NULL);
	assert_int_equal(send(nameless, "VFKT", 4, 0), 4);
	assert_int_equal(meet(fixture), 0);
	assert_non_null(strstr(fixture->reason, "bind"));
	assert_int_equal(fixture->counters.drops, 1);
	client = connect_client(fixture, "client");
	assert_int_equal(send(client, "VFKT", 4, 0), 4);
	assert_int_equal(meet(fixture), 1);
	assert_int_equal(send(nameless, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPERM);
	close(nameless);
	close_client(fixture, client, "client");
}

static void test_client_that_has_gone_is_passed_over(void **state)
{
	struct fixture *fixture = *state;
	int client;

	assert_int_equal(open_server(fixture), 0);
	client = connect_client(fixture, "gone");
	assert_int_equal(send(client, "VFKT", 4, 0), 4);
	close_client(fixture, client, "gone");
	assert_int_equal(meet(fixture), 0);
	assert_true(*fixture->reason);
	assert_int_equal(fixture->counters.drops, 1);
	client = connect_client(fixture, "client");
	assert_int_equal(send(client, "VFKT", 4, 0), 4);
	assert_int_equal(meet(fixture), 1);
	close_client(fixture, client, "client");
}

/* Returns whether the server was had, or another one had it. */
static bool hold_for_a_moment(struct fixture *fixture, const char *mark)
{
	int error = open_server(fixture);
	bool is_right = error == 0 || error == -EWOULDBLOCK;

	if (error == 0) {
		int file = open(mark, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

		is_right = file >= 0 && unlink(mark) == 0;
		fd_close(file);
	}
	socket_server_close(&fixture->server);
	return is_right;
}

/* Helpers come and go at one path; at no time do two of them hold it. */
static void test_lock_has_one_holder_in_a_race(void **state)
{
	struct fixture *fixture = *state;
	char mark[SOCKET_SERVER_PATH_MAX + 1];
	pid_t children[6];

	snprintf(mark, sizeof(mark), "%s/mark", fixture->directory);
	for (size_t i = 0; i < array_length(children); i++) {
		children[i] = fork();
		if (children[i] > 0)
			continue;
		for (int round = 0; round < 3000; round++)
			if (!hold_for_a_moment(fixture, mark))
				_exit(1);
		_exit(0);
	}
	for (size_t i = 0; i < array_length(children); i++) {
		int status;

		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
}

#define test_with_directory(name)                                                                  \
	cmocka_unit_test_setup_teardown(name, make_fixture, remove_fixture)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_directory(test_opens_and_leaves_nothing),
		test_with_directory(test_second_server_is_refused_and_harms_nothing),
		test_with_directory(test_leftovers_are_taken_over),
		test_with_directory(test_what_is_no_dead_socket_is_left_alone),
		test_with_directory(test_only_own_files_are_removed),
		test_with_directory(test_lock_is_no_link),
		test_with_directory(test_longest_path),
		test_with_directory(test_magic_is_swallowed_and_nothing_else),
		test_with_directory(test_client_without_address_is_passed_over),
		test_with_directory(test_client_that_has_gone_is_passed_over),
		test_with_directory(test_lock_has_one_holder_in_a_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
