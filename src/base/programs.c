#include "base/programs.h"

#include "base/cleanup.h"

#include <unistd.h>

const char *program_find_dnsmasq(void)
{
	static const char *const paths[] = {
		"/usr/sbin/dnsmasq",
		"/usr/local/sbin/dnsmasq",
		"/usr/bin/dnsmasq",
	};

	for (size_t i = 0; i < array_length(paths); i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}
