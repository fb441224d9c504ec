/* A user of libvmnet-broker that goes on by one step with each line of stdin: an interface, its fds
 * closed, the handle closed. */
#include "vmnet-broker.h"

#include <stdio.h>
#include <unistd.h>

static void step(const char *done)
{
	puts(done);
	fflush(stdout);
	getchar();
}

int main(void)
{
	struct vmnet_broker_interface interface;
	char reason[256];
	vmnet_broker_t *broker = vmnet_broker_connect(NULL, NULL, reason, sizeof(reason));

	if (!broker || vmnet_broker_create_interface(broker, "shared", NULL, &interface) !=
			       VMNET_BROKER_SUCCESS) {
		fprintf(stderr, "%s\n", broker ? vmnet_broker_reason(broker) : reason);
		return 1;
	}
	step("made");
	close(interface.queues[0]);
	step("tap closed");
	vmnet_broker_close(broker);
	step("handle closed");
	return 0;
}
