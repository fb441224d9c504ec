/*
 * What has to be there before privileges are trimmed: directories, the lock, the instance and the
 * listening socket.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SETUP_ERROR_SIZE 512

struct setup_options {
	const char *runtime_directory;
	const char *state_directory;
	const char *user_name;  /* NULL: vmnet-broker if it exists, else nobody */
	const char *group_name; /* NULL: vmnet if it exists, else root's */
	bool is_rootless;       /* all is this user's own, and the two above do not count */
};

struct setup {
	uid_t uid; /* the front's */
	gid_t gid;
	char user_name[64];
	uint32_t instance;
	int runtime; /* the runtime directory */
	int lock;    /* its file "lock", held as long as it is open */
	int listen_fd;
	char socket_path[108]; /* to be removed at the end; empty when systemd owns the socket */
};

/* An empty one, for setup_done(). */
void setup_init(struct setup *setup);

/*
 * Makes all of it, as root, or with is_rootless as anybody, and then without taking connections. On
 * failure returns negative errno, and error (SETUP_ERROR_SIZE bytes) says what to do; setup_done()
 * is due in either case.
 */
int setup_prepare(struct setup *setup, const struct setup_options *options, char *error);

/* From now on clients connect, whom the front will serve: what is_rootless left to do. Negative
 * errno of listen(2). */
int setup_listen(struct setup *setup);

/*
 * The same for priv as a unit of its own: the service manager has made the directories and passed
 * the socket where fronts connect, which becomes listen_fd, non-blocking. Needs no more than the
 * capability SETUID and SETGID: what belongs to the front's user is read as that user.
 */
int setup_prepare_unit(struct setup *setup, const struct setup_options *options, char *error);

/*
 * What the front as a unit of its own gets: the socket for clients, which the service manager has
 * passed, and a connection to priv, made here. Both are the caller's. Errors as above.
 */
int setup_front_unit(
	const char *runtime_directory, int *ret_verbs, int *ret_listen_fd, char *error);

/* Removes the socket and closes the fds. */
void setup_done(struct setup *setup);
