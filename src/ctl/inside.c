#include "ctl/inside.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define PORT_DNS    53

/* Services of the host that libc's resolver asks before it reads resolv.conf: they know nothing of
 * VMs, and their word that a name is not there is final. */
static const char *const host_services[] = {
	"/run/systemd/resolve/io.systemd.Resolve",
	"/run/nscd/socket",
};

__attribute__((format(printf, 3, 4))) static int fail(
	char *text, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, INSIDE_ERROR_SIZE, format, arguments);
	va_end(arguments);
	return error;
}

static int write_text(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t length = strlen(text);

	if (fd < 0)
		return -errno;
	return write(fd, text, length) == (ssize_t)length ? 0 : -errno;
}

/* --- names --- */

/* It is an address of this namespace, so it answers at once. */
static bool serves_names(const char *name_server)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT_DNS)};
	cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && inet_pton(AF_INET, name_server, &address.sin_addr) == 1 &&
	       connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static int write_resolv_conf(int fd, const struct inside_options *options)
{
	int length = dprintf(fd,
		"# vmnetctl exec: names of VMs, for this command\n"
		"nameserver %s\nsearch %s\n",
		options->name_server, options->domain);

	/* mkostemp(3) makes it the owner's; a command may read it as another of the namespace. */
	return length < 0 || fchmod(fd, 0644) < 0 ? -errno : 0;
}

/* In a mount namespace of its own; what the file is mounted on follows links. */
static int mount_file(const char *path)
{
	if (mount(path, RESOLV_CONF, NULL, MS_BIND, NULL) < 0)
		return -errno;
	/* What is no socket refuses connections; where there is none already that is as well. */
	for (size_t i = 0; i < array_length(host_services); i++)
		if (mount(path, host_services[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT &&
			errno != ENOTDIR)
			return -errno;
	return 0;
}

static int use_name_server(const struct inside_options *options)
{
	char path[PATH_MAX];
	cleanup_fd int fd = -1;
	int error;

	if (unshare(CLONE_NEWNS) < 0)
		return -errno;
	/* What is mounted from here on is seen by this process only. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/resolv.conf-XXXXXX", options->runtime_directory);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = write_resolv_conf(fd, options);
	if (!error)
		error = mount_file(path);
	unlink(path);
	return error;
}

static int find_names(const struct inside_options *options, char *text)
{
	int error;

	if (!options->name_server)
		return 0;
	if (!serves_names(options->name_server))
		return fail(text, 1, "nobody serves names at %s", options->name_server);
	error = use_name_server(options);
	if (error)
		return fail(text, 1, RESOLV_CONF " could not be replaced: %s", strerror(-error));
	return 0;
}

/* --- who one is --- */

/*
 * A user namespace below that of the networks, in which the one user there is has the number that
 * he has outside: programs find his home, his keys and his name. Without capabilities over the
 * networks' namespace, like any program of his.
 */
static int become_oneself(uid_t uid, gid_t gid)
{
	char map[64];
	int error;

	if (unshare(CLONE_NEWUSER) < 0)
		return -errno;
	error = write_text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u 0 1", uid);
	if (!error)
		error = write_text("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u 0 1", gid);
	return error ? error : write_text("/proc/self/gid_map", map);
}

int inside_enter(struct namespaces *namespaces, const struct inside_options *options, char *text)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int error = namespaces_enter(namespaces);
	int warning;

	if (error)
		return fail(text, error,
			"the namespaces of the broker's networks cannot be entered: %s",
			strerror(-error));
	/* ping(8) of an ordinary user, of the one group there is; a new namespace lets nobody. */
	(void)write_text("/proc/sys/net/ipv4/ping_group_range", "0 0");
	warning = find_names(options, text);
	if (options->as_root)
		return warning;
	error = become_oneself(uid, gid);
	if (error)
		return fail(text, error,
			"no namespace could be made for this user (%s); --root runs the command as "
			"root of the networks' namespaces",
			strerror(-error));
	return warning;
}
