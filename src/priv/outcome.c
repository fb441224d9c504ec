#include "priv/outcome.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

void outcome_init(struct verb_outcome *outcome)
{
	*outcome = (struct verb_outcome){0};
	fd_list_init(&outcome->fds);
}

void outcome_done(struct verb_outcome *outcome)
{
	fd_list_done(&outcome->fds);
}

int outcome_add_fd(struct verb_outcome *outcome, int fd)
{
	if (outcome->fds.count >= FD_PASS_MAX) {
		fd_close(fd);
		return -ENOSPC;
	}
	outcome->fds.fds[outcome->fds.count++] = fd;
	return 0;
}

int outcome_fail(struct verb_outcome *outcome, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(outcome->detail, sizeof(outcome->detail), format, arguments);
	va_end(arguments);
	for (char *byte = outcome->detail; *byte; byte++)
		if ((unsigned char)*byte < ' ' || *byte == 0x7f)
			*byte = ' ';
	return error;
}
