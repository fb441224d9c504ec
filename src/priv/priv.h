/*
 * The broker's privileged part: the only code with CAP_NET_ADMIN. It holds no policy; the front,
 * which does, is started by it or by the service manager, and is served its verbs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* All strings and fds stay the caller's and must live until priv_run() returns. */
struct priv_options {
	/* Whose links these are: 8 hexadecimal digits in every tag, kept in the state directory. */
	uint32_t instance;
	/* Absolute; exist already. state_dir and runtime_dir/networks are front_uid's, for dnsmasq;
	 * runtime_dir itself is this process's, for saved-sysctls.h. */
	const char *state_dir;
	const char *runtime_dir;
	/* Whom the front and dnsmasq become. front_user_name (may be NULL): with that user's other
	 * groups. */
	uid_t front_uid;
	gid_t front_gid;
	const char *front_user_name;
	/*
	 * The front's argv, NULL-terminated: the same program (/proc/self/exe) is started with it,
	 * with the verbs' socket at fd 3 and listen_fd at fd 4, in the same environment, and a
	 * second time when it dies. NULL: fronts are started by somebody else and connect to
	 * listen_fd, a SOCK_SEQPACKET one; one at a time is served.
	 */
	char *const *front_arguments;
	int listen_fd;
	/* It runs in namespaces of an ordinary user, with capabilities there alone, and whoever
	 * started it does so again with the same build. */
	bool is_rootless;
};

/*
 * What /proc/self/exe does as "--role=capture" for captures.h, which starts it: gives up whatever
 * it still may, takes orders at fd 3 and writes to fd 4 until the end. Negative errno.
 */
int priv_run_capture(void);

/*
 * Gives up what it does not need, starts the front and serves it until the front exits with 0 or a
 * SIGTERM or SIGINT comes; that is passed on as SIGTERM, and the front has 10 s to take unused
 * networks away. Ends every dnsmasq and leaves the links. Sends READY=1 to the service manager with
 * the front's first verb, and what its watchdog asks for. Blocks SIGTERM, SIGINT and SIGCHLD in the
 * caller. Logs.
 *
 * Where fronts connect it is ready at once, outlives each of them, and ends at once by SIGTERM or
 * SIGINT, or with a front in the queue when another build of the program is at its place: the
 * service manager then starts that one for it.
 *
 * Call it as root with the six capabilities of confine.h, single-threaded. Returns 0, or negative
 * errno when it cannot start (-EADDRINUSE: another broker runs in this network namespace) or the
 * front fails before its first verb (-ECANCELED); then the reason has been logged.
 */
int priv_run(const struct priv_options *options);
