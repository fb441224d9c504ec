/* Who keeps a port from us: proc(5), as far as an ordinary user sees it. */
#include "broker/linux.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* "0A": TCP's LISTEN; UDP has "07" while nobody is connected. */
static const struct socket_table {
	const char *path;
	const char *state;
} tables[] = {
	{"/proc/self/net/udp", "07"},
	{"/proc/self/net/tcp", "0A"},
	{"/proc/self/net/udp6", "07"},
	{"/proc/self/net/tcp6", "0A"},
};

/* Programs that serve DNS or DHCP; whose socket it is, only root could say for sure. */
static const char *const servers[] = {
	"AdGuardHome",
	"bind9",
	"connmand",
	"coredns",
	"dhcpd",
	"dnscrypt-proxy",
	"dnsmasq",
	"kea-dhcp4",
	"kresd",
	"named",
	"pdns_recursor",
	"pdns_server",
	"pihole-FTL",
	"systemd-network",
	"systemd-resolve",
	"udhcpd",
	"unbound",
};

/*
 * The user whose socket takes the port on every address; false: the line has no such one. Each
 * dnsmasq of ours takes DHCP's, of one interface.
 */
static bool read_socket(
	const char *line, const struct socket_table *table, uint16_t port, uid_t *ret_uid)
{
	char address[33], state[3];
	unsigned int found_port, uid;

	if (sscanf(line, " %*d: %32[0-9A-F]:%x %*[0-9A-F]:%*x %2s %*x:%*x %*x:%*x %*x %u", address,
		    &found_port, state, &uid) != 4)
		return false;
	if (found_port != port || strcmp(state, table->state) != 0 ||
		strspn(address, "0") != strlen(address) || uid == geteuid())
		return false;
	*ret_uid = uid;
	return true;
}

static bool find_socket(uint16_t port, uid_t *ret_uid)
{
	for (size_t i = 0; i < array_length(tables); i++) {
		cleanup_file FILE *file = fopen(tables[i].path, "re");
		char line[256];

		while (file && fgets(line, sizeof(line), file))
			if (read_socket(line, &tables[i], port, ret_uid))
				return true;
	}
	return false;
}

static bool is_server(const char *name)
{
	for (size_t i = 0; i < array_length(servers); i++)
		if (strcmp(servers[i], name) == 0)
			return true;
	return false;
}

/*
 * Containers have servers of their own, which keep no port from us. Whose network namespace it is,
 * only root may read; but each one has files of its own in proc.
 */
static bool shares_network(int process)
{
	struct stat own, other;

	if (stat("/proc/self/net/udp", &own) < 0)
		return true;
	/* ENOENT: it has just ended. */
	if (fstatat(process, "net/udp", &other, 0) < 0)
		return errno != ENOENT;
	return own.st_ino == other.st_ino;
}

/* The name of a process that serves the same network and is not ours. */
static bool read_process(int processes, const char *pid, char name[32], uid_t *ret_uid)
{
	cleanup_fd int directory = -1, fd = -1;
	struct stat status;
	ssize_t size;

	directory = openat(processes, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 || fstat(directory, &status) < 0 || status.st_uid == geteuid())
		return false;
	fd = openat(directory, "comm", O_RDONLY | O_CLOEXEC);
	size = fd < 0 ? -1 : read(fd, name, 31);
	if (size <= 0)
		return false;
	name[size] = '\0';
	name[strcspn(name, "\n")] = '\0';
	*ret_uid = status.st_uid;
	return is_server(name) && shares_network(directory);
}

/* A server of the socket's user; else, because many give root up after they opened it, any. */
static bool find_process(uid_t socket_uid, char *text, size_t text_size)
{
	DIR *processes = opendir("/proc");
	bool found = false, is_exact = false;
	char name[32];
	uid_t uid;

	if (!processes)
		return false;
	for (const struct dirent *entry; !is_exact && (entry = readdir(processes));) {
		if (!isdigit((unsigned char)*entry->d_name) ||
			!read_process(dirfd(processes), entry->d_name, name, &uid))
			continue;
		is_exact = uid == socket_uid;
		if (!found || is_exact)
			snprintf(text, text_size, "%s (process %.10s)", name, entry->d_name);
		found = true;
	}
	closedir(processes);
	return found;
}

bool platform_find_port_holder(struct platform *platform, uint16_t port, char *text)
{
	uid_t uid;

	/* The networks' ports are their namespace's, where nobody else is. */
	if (platform->is_rootless)
		return false;
	if (!find_socket(port, &uid))
		return false;
	if (!find_process(uid, text, PLATFORM_DETAIL_SIZE))
		snprintf(text, PLATFORM_DETAIL_SIZE, "a server of user id %u", (unsigned int)uid);
	return true;
}
