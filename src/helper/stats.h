/*
 * The line of counters that --stats-interval asks for, and the one that vmnet-broker does.
 */
#pragma once

#include "helper/port.h"

#include <time.h>

#define STATS_TEXT_SIZE 512

/*
 * Writes into text (STATS_TEXT_SIZE bytes) one JSON object: "time" (ISO 8601, local, milliseconds,
 * numeric offset), and for each direction its counters since the start: "host" is host->vm, "vm"
 * is vm->host, named after the sender as the original does. -ERANGE for a time without a calendar
 * date.
 */
int stats_to_text(const struct timespec *time, const struct direction_counters *host_to_vm,
	const struct direction_counters *vm_to_host, char *text);

/* The same counters as vmnet-broker reads them (ServeCounters in docs/protocol.md), to be freed;
 * NULL when memory is out. */
char *stats_to_traffic(
	const struct direction_counters *host_to_vm, const struct direction_counters *vm_to_host);
