/*
 * The helper's dealings with the broker: one interface on a network, whose TAP then is the lease.
 */
#pragma once

#include "helper/helper-options.h"
#include "vmnet-broker.h"

#define ATTACH_REASON_SIZE 1024

/* A request for an interface. */
struct attach_request {
	vmnet_broker_t *broker;                  /* the caller's; used by nobody else meanwhile */
	const struct helper_options *options;    /* the caller's */
	int vm_socket;                           /* its buffers are made large; the caller's */
	vmnet_broker_status_t status;            /* the answer */
	struct vmnet_broker_interface interface; /* on success; its one queue is the caller's */
	char reason[ATTACH_REASON_SIZE];         /* on failure: one line for people */
};

/* Asks and waits for the answer. Suits pthread_create(3): context is a struct attach_request, the
 * result NULL. */
void *attach_create_interface(void *context);

/* The line that tells the VM's starter what it got, to be freed. Negative errno. */
int attach_startline(const struct vmnet_broker_interface *interface,
	const struct helper_options *options, char **ret_text);
