/*
 * What of a host keeps an ordinary user from having networks, and what mends it.
 */
#pragma once

enum obstacle_grade {
	OBSTACLE_VITAL, /* there is no network at all */
	OBSTACLE_PART,  /* there are networks, and something of them is missing */
	OBSTACLE_NOTE,  /* nothing is wrong, but who wants more has to do this first */
};

struct obstacle {
	enum obstacle_grade grade;
	const char *problem; /* a word for programs */
	const char *text;    /* what is wrong */
	const char *mend;    /* the command, for root, that mends it */
};

typedef void obstacle_found(void *context, const struct obstacle *obstacle);

/*
 * Calls found for everything that is in the way now, the worst first; what it gets lives as long as
 * the call. program is the vmnet-broker that would be started; NULL: this process is one, and looks
 * at what holds itself, by reading files only. Of a broker of root's, which needs no namespaces,
 * only what holds that, too.
 */
void obstacles_list(const char *program, obstacle_found *found, void *context);
