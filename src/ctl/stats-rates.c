#include "ctl/stats-rates.h"

#include "base/cleanup.h"
#include "ctl/broker-call.h"

#include <errno.h>
#include <string.h>

static const char *const sources[] = {"kernel", "helper"};
static const char *const directions[] = {"hostToVm", "vmToHost"};
static const char *const counters[] = {"packets", "bytes", "drops"};

/* NULL when memory is out, as with the ones below. */
static json_t *rate_direction(const json_t *now, const json_t *before, double seconds)
{
	cleanup_ctl_json json_t *rates = json_object();

	for (size_t i = 0; i < array_length(counters); i++) {
		json_int_t grown = json_integer_value(json_object_get(now, counters[i])) -
				   json_integer_value(json_object_get(before, counters[i]));

		/* A helper that was started anew begins at 0. */
		if (json_object_set_new(rates, counters[i],
			    json_real(grown > 0 ? (double)grown / seconds : 0)) < 0)
			return NULL;
	}
	return take_ptr(rates);
}

static json_t *rate_source(const json_t *now, const json_t *before, double seconds)
{
	cleanup_ctl_json json_t *rates = json_object();

	for (size_t i = 0; i < array_length(directions); i++)
		if (json_object_set_new(rates, directions[i],
			    rate_direction(json_object_get(now, directions[i]),
				    json_object_get(before, directions[i]), seconds)) < 0)
			return NULL;
	return take_ptr(rates);
}

static int rate_entry(json_t *now, const json_t *before, double seconds)
{
	cleanup_ctl_json json_t *rates = json_object();

	for (size_t i = 0; i < array_length(sources); i++) {
		const json_t *counted = json_object_get(now, sources[i]);
		const json_t *then = json_object_get(before, sources[i]);

		if (counted && then &&
			json_object_set_new(
				rates, sources[i], rate_source(counted, then, seconds)) < 0)
			return -ENOMEM;
	}
	return json_object_set(now, "rates", rates) < 0 ? -ENOMEM : 0;
}

static const json_t *find_entry(const json_t *answer, const json_t *wanted)
{
	const char *name = json_string_value(json_object_get(wanted, "interfaceName"));
	const json_t *list = json_object_get(answer, "statistics");

	for (size_t i = 0; name && i < json_array_size(list); i++) {
		const json_t *entry = json_array_get(list, i);
		const char *other = json_string_value(json_object_get(entry, "interfaceName"));

		if (other && strcmp(name, other) == 0)
			return entry;
	}
	return NULL;
}

int stats_add_rates(json_t *now, const json_t *before)
{
	json_int_t elapsed_ms = json_integer_value(json_object_get(now, "time")) -
				json_integer_value(json_object_get(before, "time"));
	json_t *entry;
	size_t i;

	if (!before || elapsed_ms <= 0)
		return 0;
	json_array_foreach(json_object_get(now, "statistics"), i, entry)
	{
		const json_t *earlier = find_entry(before, entry);

		if (earlier && rate_entry(entry, earlier, (double)elapsed_ms / 1000) < 0)
			return -ENOMEM;
	}
	return 0;
}
