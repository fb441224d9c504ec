/*
 * The process group in which vmnet-client, its guard, the helper and the command live, so that one
 * signal reaches all that is to end together. Linux: who is in it is read from /proc (proc(5)).
 */
#pragma once

#include <sys/types.h>

#define PROCESS_GROUP_TERM_MS 5000 /* what a process may take to end after TERM, before KILL */

struct process_group {
	pid_t previous; /* the group we came from, with whose terminal on stdin; 0: none */
};

/*
 * Makes this process the leader of a group of its own, unless it leads one already. When the old
 * group was the one in the foreground of the terminal on stdin, the new one takes its place: else
 * the command could not read from there, and Ctrl-C would miss it. Negative errno of setpgid(2).
 */
int process_group_enter(struct process_group *ret_group);

/*
 * Stops this process until it is continued, as a terminal's ^Z asks for that has stopped the others
 * in the group. A shell's job is the group we came from: that one is stopped with us, else nobody
 * would notice, and when the shell continues it, our group goes on too. SIGTSTP, SIGTTIN and
 * SIGTTOU have to be blocked. Returns at once where nobody could continue us (setpgid(2), orphaned
 * process groups).
 */
void process_group_suspend(const struct process_group *group);

/* Gives the terminal back, if process_group_enter() took it and nobody else did meanwhile. */
void process_group_leave(struct process_group *group);

/*
 * Counts the processes in the caller's group and sends each of them signal unless that is 0. Left
 * out are the caller, the process except (0: none), and, when parent is not 0, all that are not
 * children of parent; when it is 0, zombies, for which somebody else must wait. Returns the count,
 * or negative errno when /proc can't be read.
 */
int process_group_signal(pid_t parent, pid_t except, int signal);
