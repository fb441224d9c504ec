/*
 * A broker whose front is an attacker's: priv is the real one, the front does what the test says.
 *
 *     captured-front INSTANCE STATE-DIR RUNTIME-DIR CONTROL-SOCKET
 *
 * The front connects to CONTROL-SOCKET, which the test listens at, and gives it its end of the
 * verbs' socket, so that the test asks priv whatever it likes. It lives until SIGTERM or a byte on
 * that connection, which is its exit status.
 */
#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/text.h"
#include "priv/front.h"
#include "priv/priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NOBODY 65534

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	error = text_copy(address.sun_path, sizeof(address.sun_path), path);
	if (error)
		return error;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return take_fd(&fd);
}

static int run_front(const char *control_path)
{
	static const int verbs = FRONT_VERBS_FD;
	cleanup_fd int control = connect_to(control_path);
	uint8_t status = 0;

	if (control < 0 || fd_send(control, "v", 1, &verbs, 1) != 1) {
		fprintf(stderr, "captured-front: %s: cannot reach the test\n", control_path);
		return 1;
	}
	/* Only the test's copy is left, so that it can close the socket too. */
	close(FRONT_VERBS_FD);
	return read(control, &status, sizeof(status)) == sizeof(status) ? status : 0;
}

static int run_priv(char **arguments)
{
	static char program[] = "captured-front", role[] = "front";
	char *front_arguments[] = {program, role, arguments[4], NULL};
	cleanup_fd int listen_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct priv_options options = {
		.state_dir = arguments[2],
		.runtime_dir = arguments[3],
		.front_uid = NOBODY,
		.front_gid = NOBODY,
		.front_arguments = front_arguments,
		.listen_fd = listen_fd,
	};

	umask(022);
	if (listen_fd < 0 || text_to_uint32(arguments[1], 0, UINT32_MAX, &options.instance) < 0)
		return 1;
	return priv_run(&options) < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "front") == 0)
		return run_front(argv[2]);
	/* As priv starts its own program for a capture. */
	if (argc == 2 && strcmp(argv[1], "--role=capture") == 0)
		return priv_run_capture() < 0;
	if (argc == 5)
		return run_priv(argv);
	fprintf(stderr, "usage: captured-front INSTANCE STATE-DIR RUNTIME-DIR CONTROL-SOCKET\n");
	return 1;
}
