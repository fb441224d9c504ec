/*
 * How vmnet-helper and vmnet-client ask for an interface, and what they tell of it.
 */
#pragma once

#include "base/interface-options.h"
#include "vmnet-broker.h"
#include "wire/startline.h"

/* The network that options mean, for the library; texts are those of options. */
struct vmnet_broker_network_options joining_network(const struct interface_options *options);

/*
 * What to ask for when options->network, or NULL, is the name. network must outlive the result and
 * is what joining_network() gave. Queues, vhost and sockets are the caller's to set.
 */
struct vmnet_broker_interface_options joining_interface(const struct interface_options *options,
	const struct vmnet_broker_network_options *network);

/*
 * Keeps the network namespace of an interface, whose queues are still there, open until this
 * process ends, where that is another one than its own: for who closes the handle, which keeps it
 * otherwise. A rootless broker finds it here when all that held it was killed.
 */
void joining_keep_namespace(const struct vmnet_broker_interface *interface);

/* The line that tells of an interface; sizes and batches are the caller's to set. */
struct startline joining_startline(
	const struct interface_options *options, const struct vmnet_broker_interface *interface);
