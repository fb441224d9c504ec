#include "client/status.h"

#include "wire/messages.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const status_texts[] = {
	[VMNET_BROKER_SUCCESS] = "Success",
	[VMNET_BROKER_CONNECTION_FAILURE] = "No connection to vmnet-broker",
	[VMNET_BROKER_INVALID_REPLY] = "vmnet-broker sent an answer that cannot be understood",
	[VMNET_BROKER_NOT_ALLOWED] = "Not allowed by vmnet-broker",
	[VMNET_BROKER_INVALID_REQUEST] = "vmnet-broker refused the request as invalid",
	[VMNET_BROKER_NOT_FOUND] = "There is no network of this name",
	[VMNET_BROKER_CREATE_FAILURE] = "The network or interface could not be created",
	[VMNET_BROKER_INTERNAL_ERROR] = "vmnet-broker failed or reached a limit",
};
static_assert(
	array_length(status_texts) == VMNET_BROKER_INTERNAL_ERROR + 1, "every status has a text");

const char *vmnet_broker_strerror(vmnet_broker_status_t status)
{
	/* Callers may pass any number, and the enum's type is unsigned or int as the compiler
	 * likes. */
	size_t index = (size_t)status;

	return index < array_length(status_texts) ? status_texts[index] : "(unknown status)";
}

static const vmnet_broker_status_t error_statuses[] = {
	[BROKER_ERROR_NOT_FOUND] = VMNET_BROKER_NOT_FOUND,
	[BROKER_ERROR_NOT_ALLOWED] = VMNET_BROKER_NOT_ALLOWED,
	[BROKER_ERROR_INVALID_REQUEST] = VMNET_BROKER_INVALID_REQUEST,
	[BROKER_ERROR_CREATE_FAILURE] = VMNET_BROKER_CREATE_FAILURE,
	[BROKER_ERROR_INTERNAL] = VMNET_BROKER_INTERNAL_ERROR,
	[BROKER_ERROR_QUOTA_EXCEEDED] = VMNET_BROKER_INTERNAL_ERROR,
	[BROKER_ERROR_CONFLICT] = VMNET_BROKER_CREATE_FAILURE,
};
static_assert(array_length(error_statuses) == BROKER_ERROR_COUNT, "every error has a status");

/* The errors of varlink itself: the broker does not know the method, or a parameter of it. */
static vmnet_broker_status_t status_from_foreign(const struct varlink_reply *reply, char *reason)
{
	const char *parameter = json_string_value(json_object_get(reply->parameters, "parameter"));
	const char *method = json_string_value(json_object_get(reply->parameters, "method"));
	const char *subject = parameter ? parameter : method;

	snprintf(reason, BROKER_REASON_SIZE, "%s%s%s", reply->error, subject ? ": " : "",
		subject ? subject : "");
	if (strncmp(reply->error, VARLINK_SERVICE ".", strlen(VARLINK_SERVICE ".")) == 0)
		return VMNET_BROKER_INVALID_REQUEST;
	return VMNET_BROKER_INTERNAL_ERROR;
}

vmnet_broker_status_t status_from_reply(const struct varlink_reply *reply, char *reason)
{
	enum broker_error error;

	if (broker_error_from_name(reply->error, &error) < 0)
		return status_from_foreign(reply, reason);
	broker_error_decode(reply->parameters, reason);
	return error_statuses[error];
}
