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

vmnet_broker_status_t ctl_try_call(
	vmnet_broker_t *broker, const char *method, json_t *parameters, json_t **ret_answer)
{
	cleanup_ctl_json json_t *owned = parameters;
	cleanup_free char *text = owned ? json_dumps(owned, JSON_COMPACT) : strdup("{}");
	cleanup_free char *answer = NULL;
	vmnet_broker_status_t status = VMNET_BROKER_INTERNAL_ERROR;
	json_t *value;

	if (text)
		status = vmnet_broker_call(broker, method, text, &answer);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	value = json_loads(answer, 0, NULL);
	if (!value)
		return VMNET_BROKER_INTERNAL_ERROR;
	*ret_answer = value;
	return status;
}

void ctl_report_failure(vmnet_broker_t *broker, vmnet_broker_status_t status)
{
	const char *reason = vmnet_broker_reason(broker);

	log_error(CTL_TAG, "%s", *reason ? reason : vmnet_broker_strerror(status));
}

json_t *ctl_call(vmnet_broker_t *broker, const char *method, json_t *parameters)
{
	json_t *answer = NULL;
	vmnet_broker_status_t status = ctl_try_call(broker, method, parameters, &answer);

	if (status != VMNET_BROKER_SUCCESS)
		ctl_report_failure(broker, status);
	return answer;
}

/* Adds the page behind *last to whole. Returns 1 when there are more, 0 when that was the last one,
 * or -1 when it could not be had. */
static int add_page(vmnet_broker_t *broker, const char *method, json_t *whole, const char *list,
	const char *key, const char **last)
{
	json_t *parameters = *last ? json_pack("{s:s}", "after", *last) : NULL;
	cleanup_ctl_json json_t *answer = ctl_call(broker, method, parameters);
	json_t *page = json_object_get(answer, list);
	json_t *end = json_array_get(page, json_array_size(page) - 1);

	if (!answer)
		return -1;
	if (json_array_extend(json_object_get(whole, list), page) < 0) {
		log_error(CTL_TAG, "out of memory");
		return -1;
	}
	if (!json_is_true(json_object_get(answer, "more")) || !end)
		return 0;
	/* Lives on in whole. */
	*last = json_string_value(json_object_get(end, key));
	return *last ? 1 : 0;
}

json_t *ctl_call_pages(
	vmnet_broker_t *broker, const char *method, const char *list, const char *key)
{
	json_t *whole = json_pack("{s:[]}", list);
	const char *last = NULL;
	int more = 1;

	while (more > 0)
		more = add_page(broker, method, whole, list, key, &last);
	if (more == 0)
		return whole;
	json_decref(whole);
	return NULL;
}

int ctl_print_json(const json_t *value)
{
	int error = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

	if (!error && putchar('\n') != EOF && fflush(stdout) == 0)
		return 0;
	log_error(CTL_TAG, "the result could not be written: %s", strerror(errno));
	return 1;
}
