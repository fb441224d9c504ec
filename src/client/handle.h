/*
 * A handle: one connection, what it holds, and how both survive a restart of the broker.
 */
#pragma once

#include "client/connection.h"
#include "vmnet-broker.h"
#include "wire/messages.h"
#include "wire/varlink.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum held_state {
	HELD_HERE,    /* the broker holds it for this connection; losing the connection leaves it */
	HELD_LOST,    /* the connection it was held by is gone; acquiring it again leaves it */
	HELD_REFUSED, /* acquiring it again was refused; the next tick of the timer leaves it */
};

struct held_network {
	char name[NETWORK_NAME_SIZE];
	enum held_state state;
};

struct vmnet_broker {
	int epoll;
	int timer;
	pid_t owner; /* a child that inherited the handle shares these fds and must leave them alone
		      */
	int network_namespace; /* of the last interface, where it is another one than ours; or -1 */
	char *socket_path;
	bool is_own_path; /* in this user's runtime directory: nobody else is to serve there */
	struct connection *connection; /* NULL while there is none */
	struct held_network *held;
	size_t held_count;
	bool is_restoring;        /* the answer for the first lost network is being waited for */
	int64_t restore_deadline; /* of that answer */
	uint32_t retry_ms;
	char reason[BROKER_REASON_SIZE];
};

/* One call: message and fds stay the caller's. */
struct handle_call {
	json_t *message;
	const int *fds;
	size_t fds_count;
};

/* Its answer: pointers in reply live as long as message. */
struct handle_answer {
	json_t *message;
	struct varlink_reply reply;
	struct fd_list fds;
};

/* An empty answer. */
void handle_answer_init(struct handle_answer *answer);

/* Closes the fds that nobody took. */
void handle_answer_done(struct handle_answer *answer);
#define cleanup_answer __attribute__((__cleanup__(handle_answer_done)))

/* Sets the handle's reason; returns status. */
vmnet_broker_status_t handle_fail(vmnet_broker_t *broker, vmnet_broker_status_t status,
	const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What every public call starts with: forgets the last reason, refuses a handle that another
 * process made. */
vmnet_broker_status_t handle_begin(vmnet_broker_t *broker);

/*
 * Sends the call and waits for its answer, over a new connection if the old one is gone.
 * *ret_answer is the caller's to be done with, whatever is returned. An error answer is a failure,
 * too.
 */
vmnet_broker_status_t handle_make_call(
	vmnet_broker_t *broker, const struct handle_call *call, struct handle_answer *ret_answer);

/*
 * Sends a call that has many answers, over a new connection if the old one is gone, and receives
 * the next of them, however long that takes. *ret_answer is the caller's to be done with, whatever
 * is returned. An error answer is a failure, too.
 */
vmnet_broker_status_t handle_send_call(vmnet_broker_t *broker, const struct handle_call *call);
vmnet_broker_status_t handle_wait_answer(vmnet_broker_t *broker, struct handle_answer *ret_answer);

/*
 * Closes the fds of a handle that another process made, and leaves its memory alone: a thread that
 * is not here may have been changing it.
 */
void handle_abandon(vmnet_broker_t *broker);

/*
 * Keeps the network namespace of an interface open, by the fd of its TAP, until the handle is
 * closed or the next interface is made: a rootless broker that was killed together with what held
 * its namespace finds it here. Where there is nothing to keep, keeps nothing.
 */
void handle_keep_namespace(vmnet_broker_t *broker, int tap);

/* Makes room for handle_hold(), which cannot fail after it. -ENOMEM. */
int handle_reserve_held(vmnet_broker_t *broker);

/* Notes that the connection holds this network. */
void handle_hold(vmnet_broker_t *broker, const char *name);
