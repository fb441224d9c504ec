#include "broker/forward.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/events.h"
#include "broker/forward-check.h"

#include <errno.h>
#include <string.h>

/* How long a held forward outlives a broker that was restarted: its connection is tried again
 * within 2 s. */
#define GRACE_MS 5000
/* Nobody tells when a program of the host lets go of a port, or an address of the host comes. */
#define RETRY_MS 3000

static struct forward *find_forward(const struct forwards *forwards, uint32_t id)
{
	for (struct forward *forward = forwards->list; forward; forward = forward->next)
		if (forward->record.id == id)
			return forward;
	return NULL;
}

static uint32_t choose_id(const struct forwards *forwards)
{
	uint32_t id = 1;

	/* Sorted: the first gap. */
	for (const struct forward *forward = forwards->list; forward && forward->record.id == id;
		forward = forward->next)
		id++;
	return id;
}

static int insert(struct forwards *forwards, const struct forward_record *record,
	struct forward **ret_forward)
{
	struct forward *forward = calloc(1, sizeof(*forward));
	struct forward **link = &forwards->list;

	if (!forward)
		return -ENOMEM;
	forward->record = *record;
	while (*link && (*link)->record.id < record->id)
		link = &(*link)->next;
	forward->next = *link;
	*link = forward;
	forwards->count++;
	events_tell_forward(forwards->registry, forward, "added");
	*ret_forward = forward;
	return 0;
}

/* Its record goes with it. */
static void end_forward(struct forwards *forwards, struct forward *forward)
{
	struct forward **link = &forwards->list;
	int error = 0;

	while (*link != forward)
		link = &(*link)->next;
	*link = forward->next;
	forwards->count--;
	if (forward->record.origin != FORWARD_CONFIGURED)
		error = forward_records_remove(forwards->records, &forward->record);
	if (error)
		log_warn("main", "the record of forward %u could not be removed: %s",
			forward->record.id, strerror(-error));
	log_debug("main", "forward %u ended", forward->record.id);
	events_tell_forward(forwards->registry, forward, "removed");
	free(forward);
}

/* --- the kernel's rules --- */

static struct platform_forward make_rule(const struct forward *forward)
{
	return (struct platform_forward){
		.protocol = forward->record.spec.protocol,
		.listen = forward->record.spec.listen,
		.target = forward->address,
	};
}

static bool is_same_rule(const struct platform_forward *a, const struct platform_forward *b)
{
	return a->protocol == b->protocol && endpoints_are_equal(&a->listen, &b->listen) &&
	       endpoints_are_equal(&a->target, &b->target);
}

static const struct platform_forward *find_rule(
	const struct platform_forward *rules, size_t count, const struct platform_forward *wanted)
{
	for (size_t i = 0; i < count; i++)
		if (is_same_rule(&rules[i], wanted))
			return &rules[i];
	return NULL;
}

static bool has_rule(
	const struct platform_forward *rules, size_t count, const struct platform_forward *wanted)
{
	return find_rule(rules, count, wanted) != NULL;
}

static void set_active(struct forwards *forwards, struct forward *forward, bool is_active)
{
	if (forward->is_active == is_active)
		return;
	forward->is_active = is_active;
	events_tell_forward(forwards->registry, forward, is_active ? "active" : "waiting");
}

/* Rules for all that lead somewhere. NULL when memory is out. */
static struct platform_forward *list_rules(struct forwards *forwards, size_t *ret_count)
{
	struct platform_forward *rules = calloc(forwards->count + 1, sizeof(*rules));
	size_t count = 0;

	if (!rules)
		return NULL;
	for (struct forward *forward = forwards->list; forward; forward = forward->next) {
		const struct platform_forward *applied;

		forward->leads = forward_find_address(
			forwards->registry, &forward->record, &forward->address);
		if (!forward->leads) {
			set_active(forwards, forward, false);
			continue;
		}
		rules[count] = make_rule(forward);
		applied = find_rule(forwards->applied, forwards->applied_count, &rules[count++]);
		set_active(forwards, forward, !applied || !applied->error);
	}
	*ret_count = count;
	return rules;
}

/* Those that the system could not make are none. rules are the list's, in its order. */
static void note_errors(struct forwards *forwards, const struct platform_forward *rules)
{
	for (struct forward *forward = forwards->list; forward; forward = forward->next)
		if (forward->leads)
			set_active(forwards, forward, !(rules++)->error);
}

/* Of the protocol (0: any), whether one list has a rule that the other has not. */
static bool are_different(const struct forwards *forwards, const struct platform_forward *rules,
	size_t count, uint8_t protocol)
{
	for (size_t i = 0; i < count; i++)
		if ((!protocol || rules[i].protocol == protocol) &&
			!has_rule(forwards->applied, forwards->applied_count, &rules[i]))
			return true;
	for (size_t i = 0; i < forwards->applied_count; i++)
		if ((!protocol || forwards->applied[i].protocol == protocol) &&
			!has_rule(rules, count, &forwards->applied[i]))
			return true;
	return false;
}

/* Once for each number of them, and not at every retry. */
static void report_failures(struct forwards *forwards, size_t failed_count, const char *detail)
{
	if (failed_count > 0 && (!forwards->is_due || failed_count != forwards->failed_count))
		log_warn("main", "%zu forwards have no rule: %s", failed_count,
			*detail ? detail : "what they lead to is no VM of ours");
	forwards->failed_count = failed_count;
}

static void retry_later(
	struct forwards *forwards, const struct platform_forward *rules, size_t count)
{
	platform_timer_stop(forwards->retry);
	for (size_t i = 0; i < count; i++)
		if (rules[i].error) {
			platform_timer_start(forwards->retry, RETRY_MS);
			return;
		}
}

static int apply(
	struct forwards *forwards, struct platform_forward *rules, size_t count, char *detail)
{
	bool ends_flows =
		forwards->is_unknown || are_different(forwards, rules, count, IPPROTO_UDP);
	int made = platform_apply_forwards(
		forwards->registry->platform, rules, count, ends_flows, detail);

	if (made < 0) {
		log_error("main", "the rules of forwards could not be applied: %s",
			*detail ? detail : strerror(-made));
		return made;
	}
	report_failures(forwards, count - (size_t)made, detail);
	note_errors(forwards, rules);
	retry_later(forwards, rules, count);
	return 0;
}

int forwards_update(struct forwards *forwards, char *ret_detail)
{
	cleanup_free struct platform_forward *rules = NULL;
	char detail[PLATFORM_DETAIL_SIZE] = "";
	size_t count;
	int error;

	if (!forwards || forwards->is_frozen)
		return 0;
	rules = list_rules(forwards, &count);
	if (!rules)
		return -ENOMEM;
	if (!forwards->is_unknown && !forwards->is_due && !are_different(forwards, rules, count, 0))
		return 0;
	error = apply(forwards, rules, count, detail);
	if (ret_detail)
		memcpy(ret_detail, detail, sizeof(detail));
	forwards->is_unknown = error != 0;
	forwards->is_due = false;
	if (error)
		return error;
	free(forwards->applied);
	forwards->applied = take_ptr(rules);
	forwards->applied_count = count;
	return 0;
}

static void handle_retry(void *context)
{
	struct forwards *forwards = context;

	forwards->is_due = true;
	forwards_update(forwards, NULL);
}

void forwards_repair(struct forwards *forwards, const char *reason)
{
	/* Without rules there is nothing to keep up, and their removal would be reported again. */
	if (!forwards || (forwards->applied_count == 0 && !forwards->is_unknown))
		return;
	forwards->is_unknown = true;
	if (forwards_update(forwards, NULL) == 0 && !forwards->is_frozen)
		log_info("main", "applied the rules of forwards again: %s", reason);
}

/* --- one more, one less --- */

/* The one that a call asks for already: asker's own, or one that waits for its connection. */
static struct forward *find_same(const struct forwards *forwards, const struct forward_call *call,
	const struct forward_asker *asker)
{
	enum forward_origin origin = call->pin ? FORWARD_PINNED : FORWARD_HELD;

	for (struct forward *forward = forwards->list; forward; forward = forward->next)
		if (forward->record.origin == origin && forward->record.uid == asker->user->uid &&
			strcmp(forward->record.network, call->network) == 0 &&
			forward_specs_are_equal(&forward->record.spec, &call->spec) &&
			(call->pin || !forward->holder || forward->holder == asker->holder))
			return forward;
	return NULL;
}

static void set_holder(struct forward *forward, const struct forward_asker *asker)
{
	if (forward->record.origin != FORWARD_HELD)
		return;
	forward->holder = asker->holder;
	forward->holder_pid = asker->user->pid;
}

static void report_forward(const struct forward *forward)
{
	const struct forward_spec *spec = &forward->record.spec;
	char listen[ENDPOINT_TEXT_SIZE];
	char target[FORWARD_TARGET_SIZE];

	endpoint_to_text(&spec->listen, listen);
	forward_target_to_text(spec, target);
	log_info("main", "forward %u of user %d: %s %s leads to %s on network %s",
		forward->record.id, (int)forward->record.uid,
		forward_protocol_to_text(spec->protocol), listen, target, forward->record.network);
}

/* The detail is that of the first rule that could not be made. */
static int refuse_rule(const struct forwards *forwards, const struct forward *forward,
	const char *detail, struct failure *failure)
{
	const struct platform_forward wanted = make_rule(forward);
	const struct platform_forward *rule =
		find_rule(forwards->applied, forwards->applied_count, &wanted);
	char listen[ENDPOINT_TEXT_SIZE];

	for (size_t i = 0; i < forwards->applied_count; i++)
		if (forwards->applied[i].error) {
			if (&forwards->applied[i] == rule)
				return failure_set(
					failure, BROKER_ERROR_CREATE_FAILURE, "%s", detail);
			break;
		}
	endpoint_to_text(&forward->record.spec.listen, listen);
	return failure_set(failure, BROKER_ERROR_CREATE_FAILURE, "%s %s cannot be listened on: %s",
		forward_protocol_to_text(forward->record.spec.protocol), listen,
		strerror(rule ? -rule->error : EIO));
}

/* Record first, so that no rule is ever without an owner. */
static int make_forward(struct forwards *forwards, const struct forward_record *record,
	struct forward **ret_forward, struct failure *failure)
{
	char detail[PLATFORM_DETAIL_SIZE] = "";
	int error = forward_records_save(forwards->records, record);

	if (error)
		return failure_set(failure, BROKER_ERROR_INTERNAL,
			"the forward could not be recorded: %s", strerror(-error));
	error = insert(forwards, record, ret_forward);
	if (error) {
		forward_records_remove(forwards->records, record);
		return failure_set(failure, BROKER_ERROR_INTERNAL, "memory is out");
	}
	error = forwards_update(forwards, detail);
	if (!error && ((*ret_forward)->is_active || !(*ret_forward)->leads))
		return 0;
	if (error)
		failure_set(failure, BROKER_ERROR_CREATE_FAILURE,
			"the rules of the forward could not be made: %s",
			*detail ? detail : strerror(-error));
	else
		refuse_rule(forwards, *ret_forward, detail, failure);
	end_forward(forwards, *ret_forward);
	if (!error)
		forwards_update(forwards, NULL);
	return -ECANCELED;
}

int forwards_add(struct forwards *forwards, const struct forward_call *call,
	const struct forward_asker *asker, struct forward **ret_forward, struct failure *failure)
{
	struct forward_record record = {
		.id = choose_id(forwards),
		.spec = call->spec,
		.origin = call->pin ? FORWARD_PINNED : FORWARD_HELD,
		.uid = asker->user->uid,
	};
	struct forward *same = find_same(forwards, call, asker);
	int error = 0;

	text_copy(record.network, sizeof(record.network), call->network);
	if (!same)
		error = forward_check(forwards, call, asker->user, failure);
	if (!error && !same) {
		error = make_forward(forwards, &record, &same, failure);
		if (!error)
			report_forward(same);
	}
	if (error)
		return error;
	set_holder(same, asker);
	*ret_forward = same;
	return 0;
}

static int refuse_removal(const struct forward *forward, struct failure *failure)
{
	if (forward->record.origin == FORWARD_CONFIGURED)
		return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
			"forward %u is configured: take it out of the configuration of network "
			"\"%s\"",
			forward->record.id, forward->record.network);
	return failure_set(failure, BROKER_ERROR_NOT_ALLOWED,
		"forward %u is held by process %d and ends with it: end that process",
		forward->record.id, (int)forward->holder_pid);
}

int forwards_remove(struct forwards *forwards, uint32_t id, uid_t uid, struct failure *failure)
{
	struct forward *forward = find_forward(forwards, id);

	if (!forward || (uid != 0 && forward->record.uid != uid))
		return failure_set(failure, BROKER_ERROR_NOT_FOUND,
			"there is no forward %u of yours; ListForwards tells which there are", id);
	if (forward->record.origin != FORWARD_PINNED)
		return refuse_removal(forward, failure);
	end_forward(forwards, forward);
	forwards_update(forwards, NULL);
	return 0;
}

void forwards_drop_holder(struct forwards *forwards, const void *holder)
{
	if (!forwards || forwards->is_frozen || !holder)
		return;
	for (struct forward *forward = forwards->list, *next; forward; forward = next) {
		next = forward->next;
		if (forward->record.origin == FORWARD_HELD && forward->holder == holder)
			end_forward(forwards, forward);
	}
	forwards_update(forwards, NULL);
}

static void handle_grace(void *context)
{
	struct forwards *forwards = context;

	for (struct forward *forward = forwards->list, *next; forward; forward = next) {
		next = forward->next;
		if (forward->record.origin == FORWARD_HELD && !forward->holder)
			end_forward(forwards, forward);
	}
	forwards_update(forwards, NULL);
}

/* --- what is configured, what was recorded --- */

static void report_conflict(const struct forward_record *record, const char *reason)
{
	char listen[ENDPOINT_TEXT_SIZE];

	endpoint_to_text(&record->spec.listen, listen);
	log_error("main", "network %s: %s %s is not forwarded: %s", record->network,
		forward_protocol_to_text(record->spec.protocol), listen, reason);
}

/* An administrator may mean to shadow a program of the host; a user may not. */
static void warn_of_program(const struct forwards *forwards, const struct forward_record *record)
{
	char text[CONFIG_ERROR_SIZE];

	if (forward_find_program(forwards, record->spec.protocol, &record->spec.listen, text))
		log_warn("main", "network %s: its configured forward takes packets from others: %s",
			record->network, text);
}

static void add_configured(
	struct forwards *forwards, const char *network, const struct forward_spec *spec)
{
	struct forward_record record = {
		.id = choose_id(forwards), .spec = *spec, .origin = FORWARD_CONFIGURED};
	const struct forward *conflict =
		forward_find_conflict(forwards, spec->protocol, &spec->listen);
	struct forward *forward;
	char reason[160];

	text_copy(record.network, sizeof(record.network), network);
	/* More than priv takes would end all of them. */
	if (forwards->count >= FORWARDS_MAX) {
		snprintf(reason, sizeof(reason),
			"there are %d forwards already, as many as can be; remove some",
			FORWARDS_MAX);
		report_conflict(&record, reason);
		return;
	}
	if (conflict) {
		snprintf(reason, sizeof(reason),
			"forward %u of user %d has that port; remove that (vmnetctl forward "
			"--remove %u) or configure another one",
			conflict->record.id, (int)conflict->record.uid, conflict->record.id);
		report_conflict(&record, reason);
		return;
	}
	warn_of_program(forwards, &record);
	if (insert(forwards, &record, &forward) == 0)
		report_forward(forward);
}

void forwards_configure(struct forwards *forwards)
{
	const struct config *config = forwards ? forwards->registry->config : NULL;

	if (!forwards)
		return;
	for (struct forward *forward = forwards->list, *next; forward; forward = next) {
		next = forward->next;
		if (forward->record.origin == FORWARD_CONFIGURED)
			end_forward(forwards, forward);
	}
	for (size_t i = 0; i < config->networks_count; i++) {
		const struct config_network *network = &config->networks[i];

		for (size_t j = 0; !*network->error && j < network->forwards_count; j++)
			add_configured(forwards, network->name, &network->forwards[j]);
	}
	forwards_update(forwards, NULL);
}

static int take_record(void *context, const struct forward_record *record)
{
	struct forwards *forwards = context;
	struct forward *forward;

	if (forwards->count >= FORWARDS_MAX || find_forward(forwards, record->id))
		return 0;
	if (forward_find_conflict(forwards, record->spec.protocol, &record->spec.listen)) {
		report_conflict(record, "another forward has that port");
		return 0;
	}
	return insert(forwards, record, &forward);
}

int forwards_new(
	struct registry *registry, struct forward_records *records, struct forwards **ret_forwards)
{
	cleanup_with(forwards_free) struct forwards *forwards = calloc(1, sizeof(*forwards));
	int error;

	if (!forwards) {
		forward_records_close(records);
		return -ENOMEM;
	}
	forwards->registry = registry;
	forwards->records = records;
	forwards->is_unknown = true;
	error = platform_timer_new(registry->platform, handle_grace, forwards, &forwards->grace);
	if (!error)
		error = platform_timer_new(
			registry->platform, handle_retry, forwards, &forwards->retry);
	if (!error)
		error = forward_records_visit(records, take_record, forwards);
	if (error)
		return error;
	platform_timer_start(forwards->grace, GRACE_MS);
	*ret_forwards = take_ptr(forwards);
	return 0;
}

void forwards_free(struct forwards *forwards)
{
	if (!forwards)
		return;
	while (forwards->list) {
		struct forward *forward = forwards->list;

		forwards->list = forward->next;
		free(forward);
	}
	platform_timer_free(forwards->grace);
	platform_timer_free(forwards->retry);
	forward_records_close(forwards->records);
	free(forwards->applied);
	free(forwards);
}

void forwards_freeze(struct forwards *forwards)
{
	if (forwards)
		forwards->is_frozen = true;
}

void forward_describe(const struct forward *forward, struct broker_forward *ret_described)
{
	*ret_described = (struct broker_forward){
		.id = forward->record.id,
		.spec = forward->record.spec,
		.is_active = forward->is_active,
		.address = forward->address,
		.origin = forward->record.origin,
		.uid = forward->record.uid,
	};
	text_copy(ret_described->network, sizeof(ret_described->network), forward->record.network);
}
