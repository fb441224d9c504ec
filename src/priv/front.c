#include "priv/front.h"

#include "base/cleanup.h"
#include "base/linger.h"
#include "base/spawn.h"
#include "priv/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void front_init(struct front *front)
{
	*front = (struct front){.pidfd = -1, .verbs = -1};
}

static int open_verbs(int *ret_ours, int *ret_theirs)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	*ret_ours = ends[0];
	*ret_theirs = ends[1];
	/* Only our end: the front may wait for its replies as it likes. */
	return fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

int front_start(const struct priv_options *options, struct front *ret_front)
{
	cleanup_fd int ours = -1;
	cleanup_fd int theirs = -1;
	struct confine_user user = {
		.uid = options->front_uid,
		.gid = options->front_gid,
		.user_name = options->front_user_name,
		.parent = getpid(),
	};
	struct front front;
	int error = open_verbs(&ours, &theirs);

	if (error)
		return error;
	front_init(&front);
	error = spawn(
		&(struct spawn_options){
			.path = "/proc/self/exe",
			.arguments = options->front_arguments,
			.fds = (struct spawn_fd[]){{theirs, FRONT_VERBS_FD},
				{options->listen_fd, FRONT_LISTEN_FD}},
			.fds_count = 2,
			.prepare = confine_prepare_front,
			.context = &user,
		},
		&front.pid, &front.pidfd);
	if (error)
		return error;
	front.verbs = take_fd(&ours);
	*ret_front = front;
	return 0;
}

int front_accept(const struct priv_options *options, struct front *ret_front)
{
	cleanup_fd int fd = accept4(options->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred credentials;
	socklen_t size = sizeof(credentials);
	struct front front;

	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
		return -errno;
	if (credentials.uid != options->front_uid)
		return -EACCES;
	front_init(&front);
	front.verbs = take_fd(&fd);
	*ret_front = front;
	return 0;
}

void front_signal(const struct front *front, int number)
{
	if (front->pid > 0)
		(void)syscall(SYS_pidfd_send_signal, front->pidfd, number, NULL, 0);
}

static bool reap(struct front *front, int options, int *ret_exit_status)
{
	siginfo_t info = {0};
	int result;

	do {
		result = waitid(P_PIDFD, (id_t)front->pidfd, &info, WEXITED | options);
	} while (result < 0 && errno == EINTR);
	if (result == 0 && info.si_pid == 0)
		return false;
	*ret_exit_status = result == 0 && info.si_code == CLD_EXITED ? info.si_status : -1;
	front->pid = 0;
	return true;
}

bool front_reap(struct front *front, int *ret_exit_status)
{
	return front->pid > 0 && reap(front, WNOHANG, ret_exit_status);
}

void front_done(struct front *front)
{
	int exit_status;

	if (front->pid > 0) {
		front_signal(front, SIGKILL);
		(void)reap(front, 0, &exit_status);
	}
	fd_close(front->pidfd);
	/* With what it sent and nobody received. */
	linger_close_fd(front->verbs);
	front_init(front);
}
