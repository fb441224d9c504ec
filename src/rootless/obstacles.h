/*
 * What of a host keeps an ordinary user from having networks, and what mends it.
 */
#pragma once

/* A word for programs, a text that says what is wrong, and the command that mends it. */
typedef void obstacle_found(void *context, const char *problem, const char *text, const char *mend);

/* Calls found for everything that is in the way now, the worst first. Reads files only. */
void obstacles_list(obstacle_found *found, void *context);
