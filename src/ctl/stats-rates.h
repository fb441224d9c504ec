/* What became of counters between two looks at them. */
#pragma once

#include <jansson.h>

/*
 * Puts into each entry of ListStatistics' answer now, as "rates", how much its counters grew each
 * second since before, an earlier answer (NULL: there is none): of "kernel" and "helper", as far as
 * both have them, "hostToVm" and "vmToHost", each with "packets", "bytes" and "drops". Negative
 * errno when memory is out.
 */
int stats_add_rates(json_t *now, const json_t *before);
