/* Ownership by cleanup attribute: what a scope owns is released when the scope ends. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define array_length(array) (sizeof(array) / sizeof((array)[0]))

/* Defines cleanup_TYPE for a destructor that takes a pointer and accepts NULL. */
#define DEFINE_CLEANUP(type, destructor)                                                           \
	static inline void cleanup_##destructor(type **object)                                     \
	{                                                                                          \
		if (*object)                                                                       \
			destructor(*object);                                                       \
	}

/* Closes an fd; -1 is allowed. errno is kept, because this runs between a failure and its report.
 */
void fd_close(int fd);

static inline void cleanup_fd_close(int *fd)
{
	fd_close(*fd);
}

static inline void cleanup_memory_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_file_close(FILE **file)
{
	if (*file)
		fclose(*file);
}

#define cleanup_with(destructor) __attribute__((__cleanup__(cleanup_##destructor)))
#define cleanup_fd               __attribute__((__cleanup__(cleanup_fd_close)))
#define cleanup_free             __attribute__((__cleanup__(cleanup_memory_free)))
#define cleanup_file             __attribute__((__cleanup__(cleanup_file_close)))

/* Gives the fd in *fd away: the variable is left at -1. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* Gives a pointer away: the variable is left at NULL. */
#define take_ptr(variable)                                                                         \
	({                                                                                         \
		__typeof__(variable) taken_ = (variable);                                          \
		(variable) = NULL;                                                                 \
		taken_;                                                                            \
	})
