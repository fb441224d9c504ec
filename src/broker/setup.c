#include "broker/setup.h"

#include "base/cleanup.h"
#include "base/text.h"
#include "broker/setup-files.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <time.h>

/* A broker that was told to end may need some seconds to take unused networks away. */
#define LOCK_PATIENCE_MS 12000
#define LOCK_POLL_MS     20
/* For one that lives, and is busy. */
#define ANSWER_PATIENCE_MS 1000
#define LOCK_FILE          "lock"
#define CLIENTS_SOCKET     "socket"
#define FRONTS_SOCKET      "priv"

void setup_init(struct setup *setup)
{
	*setup = (struct setup){.runtime = -1, .lock = -1, .listen_fd = -1};
}

void setup_done(struct setup *setup)
{
	if (*setup->socket_path)
		unlink(setup->socket_path);
	fd_close(take_fd(&setup->listen_fd));
	if (setup->lock >= 0)
		unlinkat(setup->runtime, LOCK_FILE, 0);
	fd_close(take_fd(&setup->lock));
	fd_close(take_fd(&setup->runtime));
}

static int find_user(struct setup *setup, const char *name, char *error)
{
	const struct passwd *user = getpwnam(name ? name : "vmnet-broker");

	if (!user && !name)
		user = getpwnam("nobody");
	if (!user)
		return setup_fail(error, -ENOENT,
			"user \"%s\" does not exist; --user names the one the broker runs as",
			name ? name : "nobody");
	if (user->pw_uid == 0)
		return setup_fail(error, -EINVAL,
			"--user %s: the broker's front must not run as root", user->pw_name);
	setup->uid = user->pw_uid;
	setup->gid = user->pw_gid;
	return text_copy(setup->user_name, sizeof(setup->user_name), user->pw_name);
}

static int take_own_user(struct setup *setup, gid_t *ret_gid)
{
	setup->uid = geteuid();
	setup->gid = getegid();
	*ret_gid = setup->gid;
	return 0;
}

static int find_group(const char *name, gid_t *ret_gid, char *error)
{
	const struct group *group = getgrnam(name ? name : "vmnet");

	if (!group && name)
		return setup_fail(error, -ENOENT,
			"group \"%s\" does not exist; --group names the one that may use the "
			"broker",
			name);
	*ret_gid = group ? group->gr_gid : 0;
	return 0;
}

static int make_path(
	const char *directory, const char *name, struct sockaddr_un *ret_address, char *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);

	if ((size_t)length >= sizeof(address.sun_path))
		return setup_fail(error, -ENAMETOOLONG,
			"the socket's path %s/%s has %d bytes, and %zu are possible; choose a "
			"shorter --runtime-dir",
			directory, name, length, sizeof(address.sun_path) - 1);
	*ret_address = address;
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1: it connected; 0: nobody listens; -EAGAIN: the queue is full. */
static int connect_to(int fd, const struct sockaddr_un *address)
{
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return 1;
	return errno == EAGAIN ? -EAGAIN : 0;
}

/*
 * 1: a broker answers there; 0: there is none; -EAGAIN: nobody knows yet. That a socket takes
 * connections says little: it is open a moment longer than a killed broker lives, as the kernel
 * closes a process's files after it is past answering.
 */
static int ask_other(const struct sockaddr_un *address)
{
	static const char question[] = "{\"method\":\"org.varlink.service.GetInfo\"}";
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd waiter = {.fd = fd, .events = POLLIN};
	int result = fd < 0 ? -errno : connect_to(fd, address);
	char answer;

	if (result != 1)
		return result;
	/* Its null byte is the end of the message. */
	if (send(fd, question, sizeof(question), MSG_NOSIGNAL) < 0)
		return 0;
	if (poll(&waiter, 1, ANSWER_PATIENCE_MS) <= 0)
		return -EAGAIN;
	return recv(fd, &answer, sizeof(answer), 0) > 0;
}

static int fail_served(char *error, const char *path)
{
	return setup_fail(error, -EADDRINUSE,
		"another broker serves on %s; use that one, or choose another --runtime-dir", path);
}

/* False when its holder removed the file as it ended, while we waited for it. */
static bool is_still_named(int lock, int runtime)
{
	struct stat held, named;

	return fstat(lock, &held) == 0 &&
	       fstatat(runtime, LOCK_FILE, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       held.st_ino == named.st_ino;
}

/* 1: taken; 0: somebody has it, or just ended with it. -ESTALE: the directory is gone. */
static int try_lock(struct setup *setup, int runtime)
{
	cleanup_fd int lock =
		openat(runtime, LOCK_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (lock < 0)
		return errno == ENOENT ? -ESTALE : -errno;
	if (flock(lock, LOCK_EX | LOCK_NB) < 0 || !is_still_named(lock, runtime))
		return 0;
	setup->lock = take_fd(&lock);
	return 1;
}

/*
 * One broker a runtime directory. One that serves no more is about to let go of the lock; one that
 * serves will not.
 */
static int take_lock(
	struct setup *setup, bool owns_socket, const struct sockaddr_un *address, char *error)
{
	int64_t deadline = now_ms() + LOCK_PATIENCE_MS;
	int taken;

	while ((taken = try_lock(setup, setup->runtime)) == 0) {
		if ((owns_socket && ask_other(address) > 0) || now_ms() >= deadline)
			return fail_served(error, address->sun_path);
		poll(NULL, 0, LOCK_POLL_MS);
	}
	if (taken < 0)
		return setup_fail(error, taken, "%s could not be locked: %s", address->sun_path,
			strerror(-taken));
	return 0;
}

/* Who has no lock may have the socket all the same: a part of a killed broker, for a moment, or a
 * broker whose lock file somebody removed. */
static int wait_for_free_socket(const struct sockaddr_un *address, char *error)
{
	int64_t deadline = now_ms() + LOCK_PATIENCE_MS;
	int other;

	while ((other = ask_other(address)) != 0) {
		if (other > 0 || now_ms() >= deadline)
			return fail_served(error, address->sun_path);
		poll(NULL, 0, LOCK_POLL_MS);
	}
	return 0;
}

static int bind_socket(int fd, const struct sockaddr_un *address, gid_t gid)
{
	/* The file's mode is that of the fd but for the umask's bits, so it is never another. */
	mode_t mask = umask(0);
	/* And its group is the right one from the first moment: who asks while we start is not told
	 * that he may not. */
	int own_group = setfsgid(gid);
	int result = fchmod(fd, 0660) < 0 || bind(fd, (const struct sockaddr *)address,
						     sizeof(*address)) < 0
			     ? -errno
			     : 0;

	setfsgid((gid_t)own_group);
	umask(mask);
	if (!result && chown(address->sun_path, geteuid(), gid) < 0)
		result = -errno;
	return result;
}

static int open_socket(
	struct setup *setup, const struct sockaddr_un *address, gid_t gid, char *error)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int failure = wait_for_free_socket(address, error);

	if (failure)
		return failure;
	/* What a dead broker left. */
	unlink(address->sun_path);
	failure = fd < 0 ? -errno : bind_socket(fd, address, gid);
	if (failure)
		return setup_fail(error, failure, "socket %s could not be made: %s",
			address->sun_path, strerror(-failure));
	setup->listen_fd = take_fd(&fd);
	return text_copy(setup->socket_path, sizeof(setup->socket_path), address->sun_path);
}

/* 1 when systemd passed the socket, 0 when not. */
static int take_passed_socket(int type, int *ret_fd, char *error)
{
	int count = sd_listen_fds(1);

	if (count == 0)
		return 0;
	if (count != 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, type, 1, NULL, 0) <= 0)
		return setup_fail(error, -EINVAL,
			"%d sockets were passed; one listening AF_UNIX %s socket is needed", count,
			type == SOCK_STREAM ? "stream" : "seqpacket");
	*ret_fd = SD_LISTEN_FDS_START;
	return 1;
}

/* The same, where nothing goes without it. */
static int demand_passed_socket(int type, int *ret_fd, char *error)
{
	int result = take_passed_socket(type, ret_fd, error);

	if (result == 0)
		return setup_fail(error, -EINVAL,
			"no socket was passed: this part is started by the service manager; by "
			"hand it is \"vmnet-broker\" without --role");
	return result < 0 ? result : 0;
}

/* An ordinary user's directory goes with his last network: that may be between our two steps. */
static int lock_runtime_directory(struct setup *setup, const struct setup_options *options,
	const struct sockaddr_un *address, char *error)
{
	int result;

	do {
		fd_close(take_fd(&setup->runtime));
		result = setup_open_runtime_directory(
			options->runtime_directory, &setup->runtime, error);
		if (!result)
			result = take_lock(setup, true, address, error);
	} while (result == -ESTALE && options->is_rootless);
	return result;
}

static int prepare_socket(
	struct setup *setup, const struct sockaddr_un *address, gid_t gid, char *error)
{
	int result = take_passed_socket(SOCK_STREAM, &setup->listen_fd, error);

	if (result == 0)
		result = open_socket(setup, address, gid, error);
	return result < 0 ? result : 0;
}

int setup_listen(struct setup *setup)
{
	return listen(setup->listen_fd, SOMAXCONN) < 0 ? -errno : 0;
}

int setup_prepare(struct setup *setup, const struct setup_options *options, char *error)
{
	cleanup_fd int state = -1;
	struct sockaddr_un address = {0};
	gid_t gid = 0;
	int result = options->is_rootless ? take_own_user(setup, &gid)
					  : find_user(setup, options->user_name, error);

	if (!result && !options->is_rootless)
		result = find_group(options->group_name, &gid, error);
	if (!result)
		result = make_path(options->runtime_directory, CLIENTS_SOCKET, &address, error);
	if (!result)
		result = lock_runtime_directory(setup, options, &address, error);
	if (!result)
		result = setup_fill_runtime_directory(
			setup->runtime, setup->uid, setup->gid, options->runtime_directory, error);
	if (!result)
		result = prepare_socket(setup, &address, gid, error);
	if (!result)
		result = setup_state_directory(
			options->state_directory, setup->uid, setup->gid, &state, error);
	if (!result)
		result = setup_read_instance(state, &setup->instance, error);
	if (!result && !options->is_rootless)
		result = setup_listen(setup);
	return result;
}

/* Who may write there is not to be trusted with what root may read. */
static int read_instance_as_front(struct setup *setup, const char *path, char *error)
{
	cleanup_fd int state = -1;
	int result;

	if (setegid(setup->gid) < 0 || seteuid(setup->uid) < 0)
		return setup_fail(
			error, -errno, "becoming user %s: %s", setup->user_name, strerror(errno));
	state = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (state < 0)
		result = setup_fail(error, -errno,
			"state directory %s: %s; \"systemd-tmpfiles --create\" makes it", path,
			strerror(errno));
	else
		result = setup_read_instance(state, &setup->instance, error);
	if (seteuid(0) < 0 || setegid(0) < 0)
		return setup_fail(error, -errno, "becoming root again: %s", strerror(errno));
	return result;
}

static int prepare_fronts_socket(
	struct setup *setup, const struct sockaddr_un *address, char *error)
{
	int result = take_lock(setup, false, address, error);

	if (!result)
		result = demand_passed_socket(SOCK_SEQPACKET, &setup->listen_fd, error);
	if (!result && fcntl(setup->listen_fd, F_SETFL, O_NONBLOCK) < 0)
		result = setup_fail(
			error, -errno, "the socket that was passed: %s", strerror(errno));
	return result;
}

int setup_prepare_unit(struct setup *setup, const struct setup_options *options, char *error)
{
	struct sockaddr_un address = {0};
	int result = find_user(setup, options->user_name, error);

	if (!result)
		result = make_path(options->runtime_directory, FRONTS_SOCKET, &address, error);
	if (!result)
		result = setup_open_runtime_directory(
			options->runtime_directory, &setup->runtime, error);
	if (!result)
		result = prepare_fronts_socket(setup, &address, error);
	if (!result)
		result = read_instance_as_front(setup, options->state_directory, error);
	return result;
}

int setup_front_unit(const char *runtime_directory, int *ret_verbs, int *ret_listen_fd, char *error)
{
	cleanup_fd int verbs = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	cleanup_fd int listen_fd = -1;
	struct sockaddr_un address;
	int result = make_path(runtime_directory, FRONTS_SOCKET, &address, error);

	if (!result)
		result = demand_passed_socket(SOCK_STREAM, &listen_fd, error);
	if (result)
		return result;
	if (verbs < 0 || connect(verbs, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return setup_fail(error, -errno,
			"the broker's privileged part could not be reached at %s: %s; is "
			"vmnet-broker-priv.socket started?",
			address.sun_path, strerror(errno));
	*ret_verbs = take_fd(&verbs);
	*ret_listen_fd = take_fd(&listen_fd);
	return 0;
}
