#include "forwarder/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Half of them empty when the table is full. */
#define BUCKETS_PER_FLOW 2

int flows_init(struct flows *flows, size_t count_max, uint64_t seed)
{
	*flows = (struct flows){
		.count_max = count_max,
		.buckets_count = count_max * BUCKETS_PER_FLOW,
		.seed = seed,
	};
	flows->all = calloc(count_max, sizeof(*flows->all));
	flows->buckets = calloc(flows->buckets_count, sizeof(struct flow *));
	if (!flows->all || !flows->buckets) {
		flows_done(flows);
		return -ENOMEM;
	}
	for (size_t i = count_max; i-- > 0;) {
		flows->all[i].fd = -1;
		flows->all[i].next = flows->unused;
		flows->unused = &flows->all[i];
	}
	return 0;
}

void flows_done(struct flows *flows)
{
	free(flows->all);
	free(flows->buckets);
	*flows = (struct flows){.count_max = 0};
}

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), its finisher. */
static uint64_t mix(uint64_t value)
{
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

static struct flow **find_bucket(const struct flows *flows, const struct flow_key *key)
{
	uint64_t words[sizeof(*key) / sizeof(uint64_t)];
	uint64_t hash = flows->seed;

	static_assert(sizeof(*key) % sizeof(uint64_t) == 0, "a key is whole words");
	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		hash = mix(hash ^ words[i]);
	return &flows->buckets[hash % flows->buckets_count];
}

struct flow *flows_find(const struct flows *flows, const struct flow_key *key)
{
	struct flow *flow = *find_bucket(flows, key);

	while (flow && memcmp(&flow->key, key, sizeof(*key)) != 0)
		flow = flow->next;
	return flow;
}

static void append_youngest(struct flows *flows, struct flow *flow)
{
	flow->older = flows->youngest;
	flow->younger = NULL;
	if (flows->youngest)
		flows->youngest->younger = flow;
	else
		flows->oldest = flow;
	flows->youngest = flow;
}

static void unlink_age(struct flows *flows, struct flow *flow)
{
	if (flow->older)
		flow->older->younger = flow->younger;
	else
		flows->oldest = flow->younger;
	if (flow->younger)
		flow->younger->older = flow->older;
	else
		flows->youngest = flow->older;
}

struct flow *flows_add(struct flows *flows, const struct flow_key *key, uint64_t now_ms)
{
	struct flow **bucket = find_bucket(flows, key);
	struct flow *flow = flows->unused;

	if (!flow)
		return NULL;
	flows->unused = flow->next;
	flows->count++;
	*flow = (struct flow){.key = *key, .fd = -1, .used_ms = now_ms, .next = *bucket};
	*bucket = flow;
	append_youngest(flows, flow);
	return flow;
}

void flows_use(struct flows *flows, struct flow *flow, uint64_t now_ms)
{
	flow->used_ms = now_ms;
	if (flow == flows->youngest)
		return;
	unlink_age(flows, flow);
	append_youngest(flows, flow);
}

void flows_remove(struct flows *flows, struct flow *flow)
{
	struct flow **link = find_bucket(flows, &flow->key);

	while (*link != flow)
		link = &(*link)->next;
	*link = flow->next;
	unlink_age(flows, flow);
	flow->fd = -1;
	flow->next = flows->unused;
	flows->unused = flow;
	flows->count--;
}
