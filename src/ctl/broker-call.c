#include "ctl/broker-call.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define REASON_SIZE 512

vmnet_broker_t *ctl_connect(const struct ctl *ctl)
{
	char tried[REASON_SIZE];
	vmnet_broker_status_t status;
	vmnet_broker_t *broker = vmnet_broker_connect(ctl->socket, &status, tried, sizeof(tried));

	if (!broker && status == VMNET_BROKER_NOT_ALLOWED)
		log_error(CTL_TAG,
			"vmnet-broker's socket is not for this user (%s); join its group (usermod "
			"--append --groups vmnet USER, then log in again) or run this as root",
			tried);
	else if (!broker)
		log_error(CTL_TAG,
			"no vmnet-broker answers (%s); start one as root (systemctl start "
			"vmnet-broker.socket), or say where it is with --socket",
			tried);
	return broker;
}

json_t *ctl_call(vmnet_broker_t *broker, const char *method, json_t *parameters)
{
	cleanup_ctl_json json_t *owned = parameters;
	cleanup_free char *text = owned ? json_dumps(owned, JSON_COMPACT) : strdup("{}");
	cleanup_free char *answer = NULL;
	json_t *value = NULL;
	vmnet_broker_status_t status;

	if (!text) {
		log_error(CTL_TAG, "out of memory");
		return NULL;
	}
	status = vmnet_broker_call(broker, method, text, &answer);
	if (status != VMNET_BROKER_SUCCESS) {
		const char *reason = vmnet_broker_reason(broker);

		log_error(CTL_TAG, "%s", *reason ? reason : vmnet_broker_strerror(status));
		return NULL;
	}
	value = json_loads(answer, 0, NULL);
	if (!value)
		log_error(CTL_TAG, "out of memory");
	return value;
}

int ctl_print_json(const json_t *value)
{
	int error = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

	if (!error && putchar('\n') != EOF && fflush(stdout) == 0)
		return 0;
	log_error(CTL_TAG, "the result could not be written: %s", strerror(errno));
	return 1;
}
