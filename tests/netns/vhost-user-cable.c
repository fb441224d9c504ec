/*
 * The vhost-user device alone, between a socket path and a new TAP of the namespace it runs in:
 *
 *     vhost-user-cable PATH TAP QUEUE-PAIRS
 *
 * Says on stdout what happens, one line each; after SIGUSR1 also the counters. SIGTERM ends it.
 */
#include "helper/vhost-user.h"

#include "base/cleanup.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

static int open_tap(const char *name, size_t queue_pairs)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (queue_pairs > 1)
		request.ifr_flags |= IFF_MULTI_QUEUE;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
		err(1, "TAP %s", name);
	return tap;
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	if (listener < 0 ||
		bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(listener, 1) < 0)
		err(1, "%s", path);
	return listener;
}

static int catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void print_counters(const struct vhost_user *device)
{
	struct direction_counters in, out;

	vhost_user_count(device, DIRECTION_HOST_TO_VM, &in);
	vhost_user_count(device, DIRECTION_VM_TO_HOST, &out);
	printf("counters {\"host->vm\": [%lu, %lu, %lu], \"vm->host\": [%lu, %lu, %lu], "
	       "\"stopped\": "
	       "%lu}\n",
		in.packets, in.bytes, in.drops, out.packets, out.bytes, out.drops,
		vhost_user_stopped_queues(device));
}

/* Returns false at SIGTERM. */
static bool on_signal(int signals, const struct vhost_user *device)
{
	struct signalfd_siginfo signal;

	if (read(signals, &signal, sizeof(signal)) != sizeof(signal))
		return false;
	print_counters(device);
	return signal.ssi_signo == SIGUSR1;
}

static int serve(struct vhost_user *device, int signals)
{
	static const char *const names[] = {
		[VHOST_USER_CONNECTED] = "connected",
		[VHOST_USER_DISCONNECTED] = "disconnected",
		[VHOST_USER_REFUSED] = "refused",
		[VHOST_USER_RING_BROKEN] = "broken",
		[VHOST_USER_ENDED] = "ended",
	};
	char reason[VHOST_USER_REASON_SIZE];
	enum vhost_user_news news = VHOST_USER_NOTHING;

	while (news != VHOST_USER_ENDED) {
		struct pollfd fds[VHOST_USER_FDS + 1];

		vhost_user_fill(device, fds);
		fds[VHOST_USER_FDS] = (struct pollfd){.fd = signals, .events = POLLIN};
		poll(fds, array_length(fds), -1);
		if (fds[VHOST_USER_FDS].revents && !on_signal(signals, device))
			return 0;
		news = vhost_user_dispatch(device, fds, reason);
		if (news != VHOST_USER_NOTHING)
			printf("%s: %s\n", names[news], reason);
	}
	return 1;
}

int main(int argc, char **argv)
{
	size_t queue_pairs = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
	int taps[VHOST_USER_QUEUE_PAIRS_MAX];
	struct vhost_user *device = NULL;
	int signals = catch_signals();
	int status;

	if (queue_pairs < 1 || queue_pairs > VHOST_USER_QUEUE_PAIRS_MAX)
		errx(1, "Usage: %s PATH TAP QUEUE-PAIRS", argv[0]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < queue_pairs; i++)
		taps[i] = open_tap(argv[2], queue_pairs);
	errno = -vhost_user_open(listen_at(argv[1]), taps, queue_pairs, 1500, &device);
	if (errno)
		err(1, "vhost_user_open");
	printf("ready\n");
	status = serve(device, signals);
	vhost_user_close(device);
	return status;
}
