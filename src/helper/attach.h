/*
 * The helper's dealings with the broker: one interface on a network, whose TAP then is the lease.
 */
#pragma once

#include "helper/helper-options.h"
#include "vmnet-broker.h"

#include <pthread.h>

#define ATTACH_REASON_SIZE 1024

/* A request for an interface, and the answer. */
struct attach_request {
	vmnet_broker_t *broker;
	const struct helper_options *options;
	int vm_socket;
	int done_event; /* readable when the answer is there */
	pthread_t thread;
	vmnet_broker_status_t status;
	struct vmnet_broker_interface interface; /* on success; its queues are the caller's */
	int counters_listener; /* where its counters are asked for, the caller's; -1: nowhere */
	char reason[ATTACH_REASON_SIZE]; /* on failure: one line for people */
};

/*
 * Asks, in a thread of its own: the broker may take its time, and a stop shall not. Takes over
 * broker, on failure too. options stays the caller's and must outlive the request, as vm_socket, of
 * which the buffers are made large; -1 is none. -ENOMEM, or an errno of pthread_create(3).
 */
int attach_request_start(vmnet_broker_t *broker, const struct helper_options *options,
	int vm_socket, struct attach_request **ret_request);

/* Waits for the end of the thread: from then on the answer is the caller's to read. */
void attach_request_wait(struct attach_request *request);

/* The connection, if the interface would end with it: to be kept until then. Else NULL. */
vmnet_broker_t *attach_request_take_broker(struct attach_request *request);

/* Ends the connection with the broker, after attach_request_wait(): the TAP is the lease now. */
void attach_request_free(struct attach_request *request);

/* The line that tells the VM's starter what it got, to be freed. Negative errno. */
int attach_startline(const struct vmnet_broker_interface *interface,
	const struct helper_options *options, char **ret_text);
