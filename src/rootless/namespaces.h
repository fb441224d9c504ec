/*
 * The user and network namespace that an ordinary user's networks live in: made, found again,
 * entered. Inside, this user is root (user_namespaces(7)); outside nobody is anything else than
 * before.
 *
 * The pause process (pause.h) holds both namespaces. Where it was killed while VMs run, their TAPs
 * still hold the network namespace, and it is found through the fd of one of their processes.
 */
#pragma once

#include "base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct namespaces {
	int user, network; /* of nsfs */
	int hold;          /* to the pause process: while it is open the namespaces stay */
	pid_t pause_pid;   /* 0: not known */
};

/* None: fds -1. */
void namespaces_init(struct namespaces *namespaces);

/* Closes the fds; the pause process ends by itself when nobody needs it. */
void namespaces_done(struct namespaces *namespaces);
#define cleanup_namespaces __attribute__((__cleanup__(namespaces_done)))

/*
 * Opens the namespaces of this user's broker with that runtime directory: those of its pause
 * process; else those that a VM or a client of ours holds, with a new pause process; else new ones.
 * The caller has the runtime directory's lock. Returns 1 when they are new, 0 when they were found,
 * or negative errno of unshare(2) and of what follows it.
 */
int namespaces_open(const char *runtime_directory, struct namespaces *ret_namespaces);

/*
 * Its pause process has gone: starts another one in the same namespaces. Negative errno; then they
 * are held by what is open here alone.
 */
int namespaces_revive(const char *runtime_directory, struct namespaces *namespaces);

/* The pause process listening at RUNTIME/pause, if there is one: -ENOENT. */
int namespaces_open_pause(const char *runtime_directory, struct namespaces *ret_namespaces);

/*
 * Those that a process of this user's keeps: by an fd of a TAP (SIOCGSKNS, NS_GET_USERNS) that
 * RUNTIME/interfaces has a record of, or by an fd of the recorded network namespace itself,
 * as libvmnet-broker keeps it. hold stays -1. -ENOENT: nobody.
 */
int namespaces_search(const char *runtime_directory, struct namespaces *ret_namespaces);

/*
 * For spawn()'s prepare: enters both, as root of them with every capability there. context is a
 * struct namespaces. The process must have one thread. Negative errno of setns(2).
 */
int namespaces_enter(void *context);

/* Enters the user namespace only: this process stays in the host's network. */
int namespaces_enter_user(void *context);

/*
 * The network namespace's inode number, by which proc(5) tells one from another, and which another
 * one gets soon after its end; 0: not known.
 */
uint64_t namespaces_inode(const struct namespaces *namespaces);

/*
 * The network namespace's cookie (SO_NETNS_COOKIE, Linux 5.14), which no other ever gets until the
 * next boot; 0: not known. A child enters both to read it.
 */
uint64_t namespaces_cookie(const struct namespaces *namespaces);
