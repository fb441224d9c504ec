#include "flow-options.h"

int flow_parse_source_mac(void *context, const char *argument, char *error)
{
	return text_to_mac(argument, &((struct flow_options *)context)->flow.source_mac);
}

int flow_parse_destination_mac(void *context, const char *argument, char *error)
{
	return text_to_mac(argument, &((struct flow_options *)context)->flow.destination_mac);
}

int flow_parse_source(void *context, const char *argument, char *error)
{
	return text_to_ipv4(argument, &((struct flow_options *)context)->flow.source);
}

int flow_parse_destination(void *context, const char *argument, char *error)
{
	return text_to_ipv4(argument, &((struct flow_options *)context)->flow.destination);
}

int flow_parse_size(void *context, const char *argument, char *error)
{
	return text_to_uint32(argument, 60, 1514, &((struct flow_options *)context)->size);
}

int flow_parse_header(void *context, const char *argument, char *error)
{
	((struct flow_options *)context)->has_header = true;
	return 0;
}

int flow_parse_help(void *context, const char *argument, char *error)
{
	((struct flow_options *)context)->wants_help = true;
	return 0;
}
