#include "helper/stats.h"

#include "wire/messages.h"
#include "wire/varlink.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define TIME_TEXT_SIZE      48
#define DIRECTION_TEXT_SIZE 192

static int time_to_text(const struct timespec *time, char *text)
{
	char seconds[TIME_TEXT_SIZE / 2];
	char offset[sizeof("+hhmm")];
	struct tm calendar;

	if (!localtime_r(&time->tv_sec, &calendar))
		return -ERANGE;
	if (strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &calendar) == 0)
		return -ERANGE;
	if (strftime(offset, sizeof(offset), "%z", &calendar) == 0)
		return -ERANGE;
	snprintf(text, TIME_TEXT_SIZE, "%s.%03d%.3s:%.2s", seconds, (int)(time->tv_nsec / 1000000),
		offset, offset + 3);
	return 0;
}

static uint64_t value_of(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void direction_to_text(const struct direction_counters *counters, char *text)
{
	snprintf(text, DIRECTION_TEXT_SIZE,
		"{\"packets\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"drops\": %" PRIu64
		", \"fast\": %" PRIu64 ", \"slow\": %" PRIu64 "}",
		value_of(&counters->packets), value_of(&counters->bytes),
		value_of(&counters->drops), value_of(&counters->fast), value_of(&counters->slow));
}

int stats_to_text(const struct timespec *time, const struct direction_counters *host_to_vm,
	const struct direction_counters *vm_to_host, char *text)
{
	char time_text[TIME_TEXT_SIZE];
	char host[DIRECTION_TEXT_SIZE];
	char vm[DIRECTION_TEXT_SIZE];
	int error = time_to_text(time, time_text);

	if (error)
		return error;
	direction_to_text(host_to_vm, host);
	direction_to_text(vm_to_host, vm);
	snprintf(text, STATS_TEXT_SIZE, "{\"time\": \"%s\", \"host\": %s, \"vm\": %s}", time_text,
		host, vm);
	return 0;
}

static struct traffic_counters traffic_of(const struct direction_counters *counters)
{
	return (struct traffic_counters){
		.packets = value_of(&counters->packets),
		.bytes = value_of(&counters->bytes),
		.drops = value_of(&counters->drops),
	};
}

char *stats_to_traffic(
	const struct direction_counters *host_to_vm, const struct direction_counters *vm_to_host)
{
	struct traffic traffic = {traffic_of(host_to_vm), traffic_of(vm_to_host)};
	cleanup_json json_t *object = traffic_encode(&traffic);

	return object ? json_dumps(object, JSON_COMPACT) : NULL;
}
