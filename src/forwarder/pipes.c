#include "forwarder/pipes.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>

void pipes_init(struct pipes *pipes)
{
	pipes->count = 0;
}

void pipes_done(struct pipes *pipes)
{
	while (pipes->count > 0)
		pipe_close(pipes->kept[--pipes->count]);
}

int pipes_take(struct pipes *pipes, struct pipe_pair *ret_pipe)
{
	int ends[2];

	if (pipes->count > 0) {
		*ret_pipe = pipes->kept[--pipes->count];
		return 0;
	}
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	*ret_pipe = (struct pipe_pair){.read_end = ends[0], .write_end = ends[1]};
	return 0;
}

void pipes_give(struct pipes *pipes, struct pipe_pair pipe)
{
	if (pipes->count < PIPES_KEPT)
		pipes->kept[pipes->count++] = pipe;
	else
		pipe_close(pipe);
}

void pipe_close(struct pipe_pair pipe)
{
	fd_close(pipe.read_end);
	fd_close(pipe.write_end);
}
