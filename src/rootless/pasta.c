#include "rootless/pasta.h"

#include "base/spawn.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define ARGUMENTS_MAX 24
#define RESOLV_CONF   "/etc/resolv.conf"

const char *pasta_find_program(void)
{
	static const char *const paths[] = {
		"/usr/bin/pasta",
		"/usr/local/bin/pasta",
	};

	for (size_t i = 0; i < array_length(paths); i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}

/* The first one is whom pasta asks. */
static bool has_resolver_on_loopback(void)
{
	cleanup_file FILE *file = fopen(RESOLV_CONF, "re");
	char line[256], address[64];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " nameserver %63s", address) == 1 && strchr(address, '.'))
			return strncmp(address, "127.", 4) == 0;
	return false;
}

const char *pasta_find_missing_option(const char *path)
{
	static const char *const needed[] = {"config-net", "ns-ifname", "dns-forward", "tcp-ports",
		"udp-ports", "tcp-ns", "udp-ns", "netns", "netns-only", "no-map-gw"};
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *missing = NULL;
	struct stat status;
	char *text;

	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size < SELFMAG)
		return NULL;
	text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return NULL;
	for (size_t i = 0;
		memcmp(text, ELFMAG, SELFMAG) == 0 && !missing && i < array_length(needed); i++)
		/* With its end: linkers let one text be the tail of another. */
		if (!memmem(text, (size_t)status.st_size, needed[i], strlen(needed[i]) + 1))
			missing = needed[i];
	munmap(text, (size_t)status.st_size);
	return missing;
}

struct start {
	struct namespaces namespaces;
	pid_t parent;
};

static int prepare(void *context)
{
	struct start *start = context;
	int error;

	/* Signals of our terminal are for us. */
	if (setsid() < 0)
		return -errno;
	error = namespaces_enter_user(&start->namespaces);
	if (error)
		return error;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	return getppid() == start->parent ? 0 : -ECHILD;
}

int pasta_start(const struct pasta_options *options, int log, pid_t *ret_pid, int *ret_pidfd)
{
	struct start start = {.namespaces = *options->namespaces, .parent = getpid()};
	cleanup_fd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	const char *path = pasta_find_program();
	char network[64];
	const char *arguments[ARGUMENTS_MAX] = {
		path,
		"--foreground",
		"--config-net",
		"--ns-ifname=" PASTA_INTERFACE,
		/* Ports of the host are led to VMs by us, and those of the namespace nowhere. */
		"--tcp-ports=none",
		"--udp-ports=none",
		"--tcp-ns=none",
		"--udp-ns=none",
		"--netns-only",
		network,
	};
	size_t count = 0;

	if (!path)
		return -ENOENT;
	if (null < 0)
		return -errno;
	snprintf(network, sizeof(network), "--netns=/proc/%d/ns/net",
		(int)options->namespaces->pause_pid);
	while (arguments[count])
		count++;
	/* Only there, because pasta before 2024 lets each answer of the host's name server come
	 * from this address, whichever it was that was asked. */
	if (has_resolver_on_loopback())
		arguments[count++] = "--dns-forward=" PASTA_RESOLVER;
	if (!options->maps_loopback)
		arguments[count++] = "--no-map-gw";
	return spawn(
		&(struct spawn_options){
			.path = path,
			.arguments = (char *const *)(uintptr_t)arguments,
			.fds = (struct spawn_fd[]){{null, 0}, {log, 1}, {log, 2}},
			.fds_count = 3,
			.prepare = prepare,
			.context = &start,
		},
		ret_pid, ret_pidfd);
}
