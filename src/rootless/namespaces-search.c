/* Namespaces whose pause process was killed: by what other processes of this user hold of them. */
#include "rootless/namespaces.h"

#include "base/text.h"
#include "rootless/pause.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define TUN_DEVICE "/dev/net/tun"
/* As priv names them; the broker has a record of each, named by what follows. */
#define TAP_PREFIX "vmtap"

struct search {
	const char *runtime_directory;
	unsigned long long inode, cookie; /* of the network namespace as recorded; 0: not known */
	struct namespaces found;
};

static void read_record(struct search *search)
{
	char path[PATH_MAX];
	cleanup_file FILE *file = NULL;

	snprintf(path, sizeof(path), "%s/" NAMESPACE_RECORD, search->runtime_directory);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%llu %llu", &search->inode, &search->cookie) < 1)
		search->inode = 0;
}

/* A network namespace of a user namespace of this user's own. */
static bool take(struct search *search, int owned_network)
{
	cleanup_fd int network = owned_network;
	cleanup_fd int user = network < 0 ? -1 : ioctl(network, NS_GET_USERNS);
	uid_t owner;

	if (user < 0 || ioctl(user, NS_GET_OWNER_UID, &owner) < 0 || owner != geteuid())
		return false;
	search->found.user = take_fd(&user);
	search->found.network = take_fd(&network);
	return true;
}

/* --- an fd of the namespace itself --- */

/* Opening the link is opening the namespace, which takes no more than reading the process may. */
static bool try_namespace(struct search *search, const char *path, const char *target)
{
	unsigned long long inode;

	if (!search->inode || sscanf(target, "net:[%llu]", &inode) != 1 || inode != search->inode)
		return false;
	if (!take(search, open(path, O_RDONLY | O_CLOEXEC)))
		return false;
	if (!search->cookie || namespaces_cookie(&search->found) == search->cookie)
		return true;
	/* One that got the number after ours had ended: a container's. */
	namespaces_done(&search->found);
	return false;
}

/* --- an fd of a TAP --- */

/* Which TAP it is: "iff:", proc(5) of tun devices. */
static bool read_tap_name(int pid, int fd, char name[IF_NAMESIZE])
{
	char path[64], line[128];
	cleanup_file FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "iff: %15s", name) == 1)
			return true;
	return false;
}

static bool has_record(const struct search *search, const char *name)
{
	char path[PATH_MAX];

	if (strncmp(name, TAP_PREFIX, strlen(TAP_PREFIX)) != 0)
		return false;
	snprintf(path, sizeof(path), "%s/interfaces/%s.json", search->runtime_directory,
		name + strlen(TAP_PREFIX));
	return access(path, F_OK) == 0;
}

/* Where Yama keeps processes of one user from each other (ptrace_scope), this does not work. */
static bool try_tap(struct search *search, int pid, int fd)
{
	char name[IF_NAMESIZE];
	cleanup_fd int process = -1;
	cleanup_fd int tap = -1;

	if (!read_tap_name(pid, fd, name) || !has_record(search, name))
		return false;
	process = (int)syscall(SYS_pidfd_open, pid, 0);
	tap = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, fd, 0);
	return tap >= 0 && take(search, ioctl(tap, SIOCGSKNS));
}

/* --- every process --- */

static bool try_fd(struct search *search, int pid, const char *fd)
{
	char path[64 + NAME_MAX], target[PATH_MAX];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, fd);
	length = readlink(path, target, sizeof(target) - 1);
	if (length <= 0)
		return false;
	target[length] = '\0';
	if (strcmp(target, TUN_DEVICE) == 0)
		return try_tap(search, pid, atoi(fd));
	return try_namespace(search, path, target);
}

static bool try_process(struct search *search, int pid)
{
	char path[64];
	bool found = false;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	fds = opendir(path);
	if (!fds)
		return false;
	for (const struct dirent *entry; !found && (entry = readdir(fds));)
		if (isdigit((unsigned char)*entry->d_name))
			found = try_fd(search, pid, entry->d_name);
	closedir(fds);
	return found;
}

int namespaces_search(const char *runtime_directory, struct namespaces *ret_namespaces)
{
	struct search search = {.runtime_directory = runtime_directory};
	bool found = false;
	DIR *processes = opendir("/proc");

	if (!processes)
		return -errno;
	namespaces_init(&search.found);
	read_record(&search);
	for (const struct dirent *entry; !found && (entry = readdir(processes));)
		if (isdigit((unsigned char)*entry->d_name))
			found = try_process(&search, atoi(entry->d_name));
	closedir(processes);
	if (!found)
		return -ENOENT;
	*ret_namespaces = search.found;
	return 0;
}
