/*
 * Command-line options that say from where to where made frames go.
 */
#pragma once

#include "base/options.h"
#include "test-frames.h"

/* The first member of the context of each parser below. */
struct flow_options {
	struct flow flow;
	uint32_t size; /* bytes of each frame */
	bool has_header;
	bool wants_help;
};

/* For a table of options; errors as option_entry's parse says. */
int flow_parse_source_mac(void *context, const char *argument, char *error);
int flow_parse_destination_mac(void *context, const char *argument, char *error);
int flow_parse_source(void *context, const char *argument, char *error);
int flow_parse_destination(void *context, const char *argument, char *error);
int flow_parse_size(void *context, const char *argument, char *error);
int flow_parse_header(void *context, const char *argument, char *error);
int flow_parse_help(void *context, const char *argument, char *error);

/* Entries for all of them. */
#define FLOW_OPTIONS                                                                               \
	{"source-mac", 0, "MAC", "of each frame", flow_parse_source_mac},                          \
		{"destination-mac", 0, "MAC", "of each frame", flow_parse_destination_mac},        \
		{"source", 0, "ADDRESS", "IPv4", flow_parse_source},                               \
		{"destination", 0, "ADDRESS", "IPv4", flow_parse_destination},                     \
		{"size", 0, "BYTES", "of each frame, 60 (the default) to 1514", flow_parse_size},  \
		{"vnet-hdr", 0, NULL, "the socket's frames stand behind a virtio-net header",      \
			flow_parse_header},                                                        \
	{                                                                                          \
		"help", 'h', NULL, "print this", flow_parse_help                                   \
	}
