/* Counters as Prometheus reads them (its text-based exposition format, version 0.0.4). */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* Writes ListStatistics' answer. */
void stats_write_prometheus(FILE *stream, const json_t *answer);
