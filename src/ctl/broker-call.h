/* One call to the broker and its answer as JSON, with every failure said. */
#pragma once

#include "ctl/command.h"

#include <jansson.h>

static inline void cleanup_ctl_json_decref(json_t **value)
{
	json_decref(*value);
}
#define cleanup_ctl_json __attribute__((__cleanup__(cleanup_ctl_json_decref)))

#define CTL_REASON_SIZE 512

/* Whether it was said where the broker is: by --socket, or by VMNET_BROKER_SOCKET. */
bool ctl_names_broker(const struct ctl *ctl);

/* Says that no broker answers and what this user can do, from what vmnet_broker_connect() gave. */
void ctl_report_absence(const struct ctl *ctl, vmnet_broker_status_t status, const char *tried);

/* The handle of the broker that --socket names or that answers first, to be closed with
 * vmnet_broker_close(); NULL when there is none, which has been said then. */
vmnet_broker_t *ctl_connect(const struct ctl *ctl);

static inline void cleanup_ctl_broker(vmnet_broker_t **broker)
{
	vmnet_broker_close(*broker);
}
#define cleanup_broker __attribute__((__cleanup__(cleanup_ctl_broker)))

/*
 * Calls org.vmnet.Broker's method; parameters is taken over, NULL: none. Returns the answer's
 * parameters, the caller's, or NULL: what failed has been said then.
 */
json_t *ctl_call(vmnet_broker_t *broker, const char *method, json_t *parameters);

/* A method whose answers are pages of a list. */
struct ctl_pages {
	const char *method;
	const char *list; /* the list's name in an answer */
	const char *key;  /* what in an entry the next page is asked behind */
};

extern const struct ctl_pages ctl_forwards, ctl_interfaces, ctl_leases, ctl_networks,
	ctl_statistics;

/*
 * Calls it as often as there are more. Returns an object with the whole list and what else the
 * first answer had, the caller's, or NULL: what failed has been said then.
 */
json_t *ctl_call_pages(vmnet_broker_t *broker, const struct ctl_pages *pages);

/*
 * The same two without a word: *ret_answer, *ret_whole, the caller's, are written on success only.
 * ctl_report_failure() says what failed, if it is called before anything else is done with the
 * handle.
 */
vmnet_broker_status_t ctl_try_call(
	vmnet_broker_t *broker, const char *method, json_t *parameters, json_t **ret_answer);
vmnet_broker_status_t ctl_try_pages(
	vmnet_broker_t *broker, const struct ctl_pages *pages, json_t **ret_whole);
void ctl_report_failure(vmnet_broker_t *broker, vmnet_broker_status_t status);

/* Prints value as JSON, indented, on stdout. 0, or 1 when stdout takes no more: an exit status. */
int ctl_print_json(const json_t *value);

/* The same in one line, for those who read a line at a time. */
int ctl_print_json_line(const json_t *value);
