#include "rootless/pause.h"

#include "base/cleanup.h"
#include "base/sandbox.h"
#include "rootless/remains.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A broker, and whoever runs a command inside. More wait in the socket's queue. */
#define HOLDERS_MAX 512
/* As priv names them. */
#define TAP_PREFIX   "vmtap"
#define LOCK_TRIES   50
#define LOCK_POLL_MS 20

struct pause {
	int links; /* rtnetlink: hears of links */
	int holders[HOLDERS_MAX];
	size_t holders_count;
};

static int open_links(int *ret_fd)
{
	cleanup_fd int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

/* What is said does not matter: the links are listed anew. */
static void skip_news(int links)
{
	char ignored[8192];
	ssize_t size;

	do {
		size = recv(links, ignored, sizeof(ignored), MSG_DONTWAIT);
	} while (size > 0 || (size < 0 && errno == ENOBUFS));
}

/* When links cannot be listed, there may be one. */
static bool has_tap(void)
{
	struct if_nameindex *links = if_nameindex();
	bool found = false;

	if (!links)
		return true;
	for (const struct if_nameindex *link = links; link->if_index && !found; link++)
		found = strncmp(link->if_name, TAP_PREFIX, strlen(TAP_PREFIX)) == 0;
	if_freenameindex(links);
	return found;
}

static void accept_holder(struct pause *pause)
{
	int holder = accept4(PAUSE_LISTEN_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (holder >= 0)
		pause->holders[pause->holders_count++] = holder;
}

/* Nobody says anything here: readable is the end, and what somebody says all the same is his end,
 * too. */
static void drop_ended(struct pause *pause, const struct pollfd *waiters)
{
	size_t kept = 0;

	for (size_t i = 0; i < pause->holders_count; i++)
		if (waiters[i].revents)
			fd_close(pause->holders[i]);
		else
			pause->holders[kept++] = pause->holders[i];
	pause->holders_count = kept;
}

static void wait_for_news(struct pause *pause)
{
	struct pollfd waiters[HOLDERS_MAX + 2];
	size_t count = pause->holders_count;
	bool has_room = count < HOLDERS_MAX;

	for (size_t i = 0; i < count; i++)
		waiters[i] = (struct pollfd){.fd = pause->holders[i], .events = POLLIN};
	waiters[count] = (struct pollfd){.fd = pause->links, .events = POLLIN};
	waiters[count + 1] =
		(struct pollfd){.fd = has_room ? PAUSE_LISTEN_FD : -1, .events = POLLIN};
	if (poll(waiters, count + 2, -1) < 0)
		return;
	if (waiters[count].revents)
		skip_news(pause->links);
	drop_ended(pause, waiters);
	if (waiters[count + 1].revents)
		accept_holder(pause);
}

/* A broker that is just ending lets go of the directory soon; one that starts comes to us. */
static bool is_done(struct pause *pause, const char *runtime_directory)
{
	struct pollfd waiter = {.fd = PAUSE_LISTEN_FD, .events = POLLIN};

	if (pause->holders_count > 0 || has_tap())
		return false;
	for (int tries = 0; tries < LOCK_TRIES; tries++) {
		if (remains_remove(runtime_directory) != 0)
			return true;
		if (poll(&waiter, 1, LOCK_POLL_MS) > 0) {
			accept_holder(pause);
			return false;
		}
	}
	return true;
}

int pause_run(const char *runtime_directory)
{
	struct pause pause = {.links = -1, .holders = {PAUSE_FIRST_FD}, .holders_count = 1};
	int error = open_links(&pause.links);

	prctl(PR_SET_NAME, "vmnet-pause");
	/* Where the broker was started may be on a disk that goes. */
	if (chdir("/") < 0 || signal(SIGHUP, SIG_IGN) == SIG_ERR ||
		listen(PAUSE_LISTEN_FD, HOLDERS_MAX) < 0)
		return -errno;
	if (!error)
		error = sandbox_drop_capabilities();
	if (!error)
		error = sandbox_no_new_privileges();
	/* From now on whoever holds no capability here may look at it. */
	if (!error && send(PAUSE_FIRST_FD, "", 1, MSG_NOSIGNAL) < 0)
		error = -errno;
	while (!error && !is_done(&pause, runtime_directory))
		wait_for_news(&pause);
	fd_close(pause.links);
	return error;
}
