#include "broker/check-config.h"

#include "base/log.h"
#include "broker/name-service.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

static void print_mistake(void *context, const char *network, const char *mistake)
{
	int *count = context;

	++*count;
	/* What a file says must not reach a terminal as a command to it. */
	for (; *mistake; mistake++)
		putchar(iscntrl((unsigned char)*mistake) ? '?' : *mistake);
	putchar('\n');
}

static int resolve_names(struct config *config)
{
	struct name_service *names;
	int error = name_service_start(&names);

	if (error)
		return error;
	name_service_resolve(names, config);
	name_service_free(names);
	return 0;
}

int check_config(const char *directory)
{
	struct config *config = malloc(sizeof(*config));
	int count = 0;
	int error;

	if (!config)
		return -ENOMEM;
	config_load(config, directory);
	config_visit_mistakes(config, print_mistake, &count);
	error = resolve_names(config);
	config_free(config);
	if (error)
		return error;
	if (count == 0)
		puts("ok");
	return count;
}
