#include "broker/failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int failure_set(struct failure *failure, enum broker_error error, const char *format, ...)
{
	va_list arguments;

	failure->error = error;
	va_start(arguments, format);
	vsnprintf(failure->reason, sizeof(failure->reason), format, arguments);
	va_end(arguments);
	return -ECANCELED;
}
