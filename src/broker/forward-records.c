#include "broker/forward-records.h"

#include "broker/durable.h"

#include <errno.h>
#include <string.h>

struct forward_records {
	int directories[FORWARD_ORIGIN_COUNT]; /* -1 for what is not recorded */
};

void forward_records_close(struct forward_records *records)
{
	if (!records)
		return;
	for (size_t i = 0; i < FORWARD_ORIGIN_COUNT; i++)
		fd_close(records->directories[i]);
	free(records);
}
DEFINE_CLEANUP(struct forward_records, forward_records_close)

int forward_records_open(const char *state_directory, const char *runtime_directory,
	struct forward_records **ret_records)
{
	cleanup_with(forward_records_close) struct forward_records *records =
		malloc(sizeof(*records));
	int error;

	if (!records)
		return -ENOMEM;
	for (size_t i = 0; i < FORWARD_ORIGIN_COUNT; i++)
		records->directories[i] = -1;
	error = durable_open_below(
		state_directory, "forwards", &records->directories[FORWARD_PINNED]);
	if (!error)
		error = durable_open_below(
			runtime_directory, "forwards", &records->directories[FORWARD_HELD]);
	if (!error)
		*ret_records = take_ptr(records);
	return error;
}

struct file_name {
	char text[DURABLE_NAME_SIZE];
};

static struct file_name file_name_of(uint32_t id)
{
	struct file_name name;

	snprintf(name.text, sizeof(name.text), "%u.json", id);
	return name;
}

static json_t *encode(const struct forward_record *record)
{
	char listen[ENDPOINT_TEXT_SIZE];
	char target[FORWARD_TARGET_SIZE];

	endpoint_to_text(&record->spec.listen, listen);
	forward_target_to_text(&record->spec, target);
	return json_pack("{s:s, s:s, s:s, s:s, s:I}", "network", record->network, "protocol",
		forward_protocol_to_text(record->spec.protocol), "listen", listen, "target", target,
		"uid", (json_int_t)record->uid);
}

int forward_records_save(struct forward_records *records, const struct forward_record *record)
{
	int directory = records->directories[record->origin];
	cleanup_json json_t *object = encode(record);

	if (!object)
		return -ENOMEM;
	return record->origin == FORWARD_PINNED
		       ? durable_write_json(directory, file_name_of(record->id).text, object)
		       : durable_replace_json(directory, file_name_of(record->id).text, object);
}

int forward_records_remove(struct forward_records *records, const struct forward_record *record)
{
	int directory = records->directories[record->origin];

	return record->origin == FORWARD_PINNED
		       ? durable_remove(directory, file_name_of(record->id).text)
		       : durable_drop(directory, file_name_of(record->id).text);
}

static const char *get_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static bool decode(const json_t *object, struct forward_record *record)
{
	const json_t *uid = json_object_get(object, "uid");
	struct forward_spec *spec = &record->spec;

	forward_spec_init(spec);
	if (!json_is_integer(uid) || json_integer_value(uid) < 0 ||
		json_integer_value(uid) >= UINT32_MAX)
		return false;
	record->uid = (uid_t)json_integer_value(uid);
	return network_name_is_valid(get_text(object, "network")) &&
	       text_copy(record->network, sizeof(record->network), get_text(object, "network")) ==
		       0 &&
	       forward_spec_set_protocol(spec, get_text(object, "protocol")) == 0 &&
	       forward_spec_set_listen(spec, get_text(object, "listen")) == 0 &&
	       forward_spec_set_target(spec, get_text(object, "target")) == 0 &&
	       forward_spec_settle(spec) == 0;
}

struct visit {
	int directory;
	enum forward_origin origin;
	int (*visit)(void *context, const struct forward_record *record);
	void *context;
};

static int visit_file(void *context, const char *file)
{
	struct visit *visit = context;
	struct forward_record record = {.origin = visit->origin};
	cleanup_json json_t *object = NULL;
	char stem[DURABLE_NAME_SIZE];
	int error;

	if (durable_split_name(file, DURABLE_UNFINISHED, stem, sizeof(stem)))
		return durable_drop(visit->directory, file);
	if (!durable_split_name(file, ".json", stem, sizeof(stem)) ||
		text_to_uint32(stem, 1, UINT32_MAX, &record.id) < 0)
		return 0;
	error = durable_read_json(visit->directory, file, &object);
	if (error == -EBADMSG || (!error && !decode(object, &record))) {
		durable_set_aside(visit->directory, file);
		return 0;
	}
	return error ? error : visit->visit(visit->context, &record);
}

int forward_records_visit(struct forward_records *records,
	int (*visit)(void *context, const struct forward_record *record), void *context)
{
	int result = 0;

	for (size_t i = 0; i < FORWARD_ORIGIN_COUNT && result >= 0; i++) {
		struct visit files = {
			.directory = records->directories[i],
			.origin = (enum forward_origin)i,
			.visit = visit,
			.context = context,
		};

		if (files.directory >= 0)
			result = durable_visit(files.directory, visit_file, &files);
	}
	return result < 0 ? result : 0;
}
