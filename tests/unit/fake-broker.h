/*
 * A broker in a thread of the test: answers calls as the test tells it to, over the library's own
 * framing.
 */
#pragma once

#include "vmnet-broker.h"
#include "wire/varlink.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define DEADLINE_MS 20000
#define PEERS_MAX   8

enum manner {
	MANNER_ANSWER,
	MANNER_REFUSE,    /* every call with the error refusal */
	MANNER_HANG_UP,   /* instead of an answer */
	MANNER_HANG_ONCE, /* as above, but only the first time */
	MANNER_GARBAGE,   /* "hello" */
	MANNER_NONSENSE,  /* a varlink answer, but to another question */
	MANNER_SILENT,
};

struct peer {
	int socket;
	struct varlink_input *input;
};

/* The atomics are shared between the threads; the rest is the broker's own while it runs. */
struct fake_broker {
	pthread_t thread;
	int listener;
	int stopper;
	struct peer peers[PEERS_MAX];
	_Atomic int manner;
	_Atomic int peers_accepted;
	_Atomic int acquired[2]; /* "shared", "host" */
	_Atomic int sockets_received;
	_Atomic bool names_fds_twice; /* in answers with vhost fds */
	const char *refusal;
	json_t *last_create; /* read by the test when the broker has answered */
};

/* The one broker, and where it listens: in a directory of the test's own. */
extern struct fake_broker broker;
extern char broker_directory[];
extern char broker_path[64];

/* Makes and removes the directory. 0, or -1. */
int fake_broker_make_directory(void);
void fake_broker_remove_directory(void);

/* Starts listening anew: counters are zero, no peer is connected. */
void fake_broker_start(enum manner manner);

/* Hangs up on all peers and stops listening. */
void fake_broker_stop(void);

/* For cmocka: a broker that answers, for the time of one test. */
int fake_broker_set_up(void **state);
int fake_broker_tear_down(void **state);
#define broker_test(function)                                                                      \
	cmocka_unit_test_setup_teardown(function, fake_broker_set_up, fake_broker_tear_down)

/* A handle connected to the broker. */
vmnet_broker_t *fake_broker_connect(void);
