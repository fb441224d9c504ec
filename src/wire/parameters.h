/*
 * What the encoders and decoders of messages share. Nobody else includes it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* One parameter of a call: how its value gets into the call's struct. */
struct parameter {
	const char *name;
	bool required;
	/* Returns NULL, or what would have been allowed. */
	const char *(*decode)(json_t *value, void *call);
};

/*
 * Takes the parameters of a call (NULL: none) into call, by the table. -EINVAL: one is unknown,
 * missing or wrong; reason (BROKER_REASON_SIZE bytes) says which, and what is allowed.
 */
int parameters_decode(
	json_t *parameters, const struct parameter *table, size_t count, void *call, char *reason);

/* A text that is no text is no name either: "". */
const char *parameter_text_or_empty(json_t *value);

/* The name of a network into ret_name (NETWORK_NAME_SIZE bytes). As struct parameter's decode. */
const char *parameter_decode_network_name(json_t *value, char *ret_name);

/* Leaves the member out when text is empty. json_pack("s*") would leave it out when memory is
 * short, too. Not 0 when memory is out. */
int member_set_text(json_t *object, const char *key, const char *text);

/*
 * A new reference to a text for people, which may quote bytes of a command line or a file, or be
 * cut within a character: bytes of one that is no UTF-8 become '?'. NULL when memory is out.
 */
json_t *text_encode(const char *text);
