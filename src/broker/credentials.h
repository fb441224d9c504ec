/*
 * Who a peer is, by the kernel's word of the moment it connected (SO_PEERCRED and SO_PEERGROUPS,
 * unix(7)): what it does to itself afterwards changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define CREDENTIALS_TEXT_SIZE 96

struct credentials {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* owned; the supplementary ones */
	size_t groups_count;
};

/*
 * Those of the process at the other end of a connected AF_UNIX socket; credentials_done() is due
 * afterwards. No directory service is asked, which could block: the groups are those the process
 * has, not those its user would get at the next login. Negative errno.
 */
int credentials_read(int fd, struct credentials *ret_credentials);

/* Frees the groups. All zero is allowed. */
void credentials_done(struct credentials *credentials);

/* Whether the group is among the peer's. */
bool credentials_have_group(const struct credentials *credentials, gid_t group);

/*
 * "user 1000 (alice)" for people, into text (CREDENTIALS_TEXT_SIZE bytes); without the name when
 * /etc/passwd does not have it. Only that file is read: a directory service could block.
 */
void credentials_describe(uid_t uid, char *text);
