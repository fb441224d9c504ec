#include "ctl/broker-call.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/terminal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

bool ctl_names_broker(const struct ctl *ctl)
{
	const char *named = secure_getenv("VMNET_BROKER_SOCKET");

	return ctl->socket || (named && *named);
}

static const char *absence_mend(const struct ctl *ctl, vmnet_broker_status_t status)
{
	if (status == VMNET_BROKER_NOT_ALLOWED && ctl_names_broker(ctl))
		return "it is not for this user: join its group (usermod --append --groups vmnet "
		       "USER, as root, then log in again), or leave --socket and "
		       "VMNET_BROKER_SOCKET away for a broker of your own";
	if (ctl_names_broker(ctl))
		return "start it there, or leave --socket and VMNET_BROKER_SOCKET away";
	if (geteuid() == 0)
		return "start it (systemctl start vmnet-broker.socket), or say where it is with "
		       "--socket";
	if (status == VMNET_BROKER_NOT_ALLOWED)
		return "the system's is not for this user (usermod --append --groups vmnet USER, "
		       "as root, then log in again, makes it so), and one of your own does not run "
		       "now: start a VM with vmnet-client, which starts it";
	return "one of your own starts with your first VM (vmnet-client), or by \"vmnet-broker "
	       "--rootless\"; \"vmnetctl doctor\" says what is in its way";
}

void ctl_report_absence(const struct ctl *ctl, vmnet_broker_status_t status, const char *tried)
{
	log_error(CTL_TAG, "no vmnet-broker answers (%s): %s", tried, absence_mend(ctl, status));
}

vmnet_broker_t *ctl_connect(const struct ctl *ctl)
{
	char tried[CTL_REASON_SIZE];
	vmnet_broker_status_t status;
	vmnet_broker_t *broker = vmnet_broker_connect(ctl->socket, &status, tried, sizeof(tried));

	if (!broker)
		ctl_report_absence(ctl, status, tried);
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

/* Adds the page behind last (NULL: the first one) to whole. *ret_last is what the next one is asked
 * behind, borrowed from whole, or NULL when that was the last one. */
static vmnet_broker_status_t add_page(vmnet_broker_t *broker, const struct ctl_pages *pages,
	json_t *whole, json_t *last, json_t **ret_last)
{
	json_t *parameters = last ? json_pack("{s:O}", "after", last) : NULL;
	cleanup_ctl_json json_t *answer = NULL;
	vmnet_broker_status_t status = ctl_try_call(broker, pages->method, parameters, &answer);
	json_t *page = json_object_get(answer, pages->list);
	json_t *end = json_array_get(page, json_array_size(page) - 1);

	if (status != VMNET_BROKER_SUCCESS)
		return status;
	if (json_array_extend(json_object_get(whole, pages->list), page) < 0 ||
		json_object_update_missing(whole, answer) < 0)
		return VMNET_BROKER_INTERNAL_ERROR;
	*ret_last = json_is_true(json_object_get(answer, "more")) ? json_object_get(end, pages->key)
								  : NULL;
	return status;
}

vmnet_broker_status_t ctl_try_pages(
	vmnet_broker_t *broker, const struct ctl_pages *pages, json_t **ret_whole)
{
	cleanup_ctl_json json_t *whole = json_pack("{s:[]}", pages->list);
	vmnet_broker_status_t status;
	json_t *last = NULL;

	do
		status = add_page(broker, pages, whole, last, &last);
	while (status == VMNET_BROKER_SUCCESS && last);
	if (status != VMNET_BROKER_SUCCESS)
		return status;
	json_object_del(whole, "more");
	*ret_whole = take_ptr(whole);
	return status;
}

json_t *ctl_call_pages(vmnet_broker_t *broker, const struct ctl_pages *pages)
{
	json_t *whole = NULL;
	vmnet_broker_status_t status = ctl_try_pages(broker, pages, &whole);

	if (status != VMNET_BROKER_SUCCESS)
		ctl_report_failure(broker, status);
	return whole;
}

const struct ctl_pages ctl_forwards = {"ListForwards", "forwards", "id"};
const struct ctl_pages ctl_interfaces = {"ListInterfaces", "interfaces", "interfaceName"};
const struct ctl_pages ctl_leases = {"ListLeases", "leases", "address"};
const struct ctl_pages ctl_networks = {"ListNetworks", "networks", "name"};
const struct ctl_pages ctl_statistics = {"ListStatistics", "statistics", "interfaceName"};

static int print_json(const json_t *value, size_t flags)
{
	struct terminal terminal;
	int error;

	/* Other people's texts are in it. */
	terminal_look(&terminal);
	error = json_dumpf(value, stdout,
		flags | JSON_PRESERVE_ORDER | (terminal.is_one ? JSON_ENSURE_ASCII : 0));
	if (!error && putchar('\n') != EOF && fflush(stdout) == 0)
		return 0;
	log_error(CTL_TAG, "the result could not be written: %s", strerror(errno));
	return 1;
}

int ctl_print_json(const json_t *value)
{
	return print_json(value, JSON_INDENT(2));
}

int ctl_print_json_line(const json_t *value)
{
	return print_json(value, JSON_COMPACT);
}
