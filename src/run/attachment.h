/*
 * What a command gets: its fds, and what it must know of its interface. Pure, but for this
 * process's environment.
 */
#pragma once

#include "base/text.h"
#include "run/run-options.h"
#include "run/socket-directory.h"

#include <net/if.h>
#include <stddef.h>
#include <stdint.h>

/* The command's fds begin here: part of the contract with every VM program. */
#define ATTACHMENT_FIRST_FD 4
/* "4:5:6" with its NUL, of at most RUN_QUEUES_MAX fds with at most two digits. */
#define ATTACHMENT_FD_LIST_SIZE 32

struct attachment {
	enum run_attach attach;
	char *line; /* the JSON line for stdout, with its newline; owned */
	char network[NETWORK_NAME_SIZE];
	char interface_name[IFNAMSIZ]; /* with tap: what the command opens */
	char mac[MAC_TEXT_SIZE];
	char address[INET_ADDRSTRLEN]; /* empty: the LAN gives it */
	uint32_t mtu;                  /* bytes */
	int fds[RUN_QUEUES_MAX];       /* owned; unused entries are -1 */
	size_t fds_count;
	int vhosts[RUN_QUEUES_MAX]; /* of /dev/vhost-net, native only; owned; behind fds there */
	size_t vhosts_count;        /* 0, or fds_count */
	/* native and tap only: closing the connection to the broker would end the interface */
	bool held_by_connection;
	/* The path of the socket at which the helper serves vhost-user; empty otherwise. */
	char vhost_user_path[SOCKET_DIRECTORY_PATH_SIZE];
	size_t vhost_user_queues;
	int helper_socket; /* owned; the other end of fds[0] until the helper has it, else -1 */
};

/* Owns nothing yet. */
void attachment_init(struct attachment *attachment);

/* Closes and frees what is still owned. */
void attachment_done(struct attachment *attachment);

/* Closes the command's fds early: once it runs, they are its alone. */
void attachment_close_fds(struct attachment *attachment);

#define cleanup_attachment __attribute__((__cleanup__(attachment_done)))

/*
 * Takes network, interface name, MAC, address and MTU from vmnet-helper's line of JSON
 * (wire/startline.h). -EINVAL when it is no JSON object or one of them, but the address, is missing
 * or of another type; attachment is unchanged then.
 */
int attachment_read_line(struct attachment *attachment, const char *line);

/* Number of the TAP's fds or of vhost-user's queue pairs; 0 for the others, which have none. */
size_t attachment_queues_count(const struct attachment *attachment);

/* The numbers that the command's fds have there, as in "4:5:6": fds, and vhosts, which is empty
 * where there are none. Each text has ATTACHMENT_FD_LIST_SIZE bytes. */
void attachment_list_fds(const struct attachment *attachment, char *fds, char *vhosts);

/*
 * Sets VMNET_FD or VMNET_VHOST_USER_SOCKET, VMNET_MAC_ADDRESS and so on in this process's
 * environment, which the command inherits, and takes out what an enclosing vmnet-client left there
 * of another attach kind. -ENOMEM.
 */
int attachment_set_environment(const struct attachment *attachment);
