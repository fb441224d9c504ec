/*
 * What networks leave behind in the runtime directory once their namespaces are gone.
 */
#pragma once

/* Of the broker's setup: who has this file's flock(2) is the one broker of its directory. */
#define REMAINS_LOCK "lock"

/*
 * Removes sockets and records of networks from a runtime directory whose namespaces are about to
 * end, and the directory when nothing else is in it. Returns 1 when they are gone, 0 when a broker
 * has the directory's lock, as it may only be for the moment in which it ends; negative errno.
 */
int remains_remove(const char *runtime_directory);

/*
 * Where networks never came to be: removes the directories in it that are empty, and no file. The
 * caller has its lock; the runtime directory itself goes after that.
 */
void remains_remove_empty(const char *runtime_directory);
