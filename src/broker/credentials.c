#include "broker/credentials.h"

#include "base/cleanup.h"

#include <errno.h>
#include <pwd.h>
#include <sys/socket.h>

/* The first answer says how large the list is; a process cannot change it behind that. */
static int read_groups(int fd, struct credentials *credentials)
{
	socklen_t size = 0;
	gid_t *groups;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || size == 0)
		return 0;
	if (errno != ERANGE)
		return -errno;
	groups = malloc(size);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0) {
		int error = -errno;

		free(groups);
		return error;
	}
	credentials->groups = groups;
	credentials->groups_count = size / sizeof(*groups);
	return 0;
}

int credentials_read(int fd, struct credentials *ret_credentials)
{
	struct credentials credentials = {0};
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int error;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	credentials.pid = peer.pid;
	credentials.uid = peer.uid;
	credentials.gid = peer.gid;
	error = read_groups(fd, &credentials);
	if (error)
		return error;
	*ret_credentials = credentials;
	return 0;
}

void credentials_done(struct credentials *credentials)
{
	free(credentials->groups);
	*credentials = (struct credentials){0};
}

bool credentials_have_group(const struct credentials *credentials, gid_t group)
{
	if (credentials->gid == group)
		return true;
	for (size_t i = 0; i < credentials->groups_count; i++)
		if (credentials->groups[i] == group)
			return true;
	return false;
}

void credentials_describe(uid_t uid, char *text)
{
	cleanup_file FILE *file = fopen("/etc/passwd", "re");
	struct passwd *found = NULL;

	do
		found = file ? fgetpwent(file) : NULL;
	while (found && found->pw_uid != uid);
	if (found)
		snprintf(text, CREDENTIALS_TEXT_SIZE, "user %u (%.64s)", uid, found->pw_name);
	else
		snprintf(text, CREDENTIALS_TEXT_SIZE, "user %u", uid);
}
