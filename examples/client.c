/*
 * Acquires networks from vmnet-broker, prints what it got and holds them until SIGTERM, SIGINT or
 * the end of stdin.
 *
 *     client [NETWORK...]        (default: default)
 *
 * On stdout a line a network, then "ok"; after a failure "fail STEP CODE", with the reason on
 * stderr and exit status 1.
 */
#include <vmnet-broker.h>

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int fail(const char *step, vmnet_broker_status_t status, const char *reason)
{
	printf("fail %s %d\n", step, (int)status);
	fflush(stdout);
	fprintf(stderr, "%s: %s%s%s\n", step, vmnet_broker_strerror(status), *reason ? ": " : "",
		reason);
	return 1;
}

static void print_network(const struct vmnet_broker_network *network)
{
	char subnet[INET_ADDRSTRLEN], mask[INET_ADDRSTRLEN], gateway[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &network->subnet, subnet, sizeof(subnet));
	inet_ntop(AF_INET, &network->mask, mask, sizeof(mask));
	inet_ntop(AF_INET, &network->gateway, gateway, sizeof(gateway));
	printf("network=%s mode=%s subnet=%s mask=%s gateway=%s mtu=%u bridge=%s domain=%s\n",
		network->name, network->mode, subnet, mask, gateway, network->mtu, network->bridge,
		network->domain);
}

/* Stays connected, over restarts of the broker too, until told to end. */
static void hold(vmnet_broker_t *broker, int signals)
{
	struct pollfd waiters[] = {
		{.fd = signals, .events = POLLIN},
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = vmnet_broker_get_fd(broker), .events = POLLIN},
	};
	char ignored[256];

	while (poll(waiters, 3, -1) >= 0) {
		if (waiters[0].revents)
			return;
		if (waiters[1].revents && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0)
			return;
		if (waiters[2].revents)
			vmnet_broker_dispatch(broker);
	}
}

static int acquire_and_hold(vmnet_broker_t *broker, char **names, int signals)
{
	for (; *names; names++) {
		struct vmnet_broker_network network;
		vmnet_broker_status_t status = vmnet_broker_acquire(broker, *names, &network);

		if (status != VMNET_BROKER_SUCCESS)
			return fail("acquire", status, vmnet_broker_reason(broker));
		print_network(&network);
	}
	puts("ok");
	fflush(stdout);
	hold(broker, signals);
	return 0;
}

int main(int argc, char **argv)
{
	char default_name[] = "default";
	char *default_names[] = {default_name, NULL};
	char reason[512];
	vmnet_broker_status_t status;
	vmnet_broker_t *broker;
	sigset_t ending;
	int result;

	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	sigprocmask(SIG_BLOCK, &ending, NULL);

	broker = vmnet_broker_connect(NULL, &status, reason, sizeof(reason));
	if (!broker)
		return fail("connect", status, reason);
	result = acquire_and_hold(
		broker, argc > 1 ? argv + 1 : default_names, signalfd(-1, &ending, 0));
	vmnet_broker_close(broker);
	return result;
}
