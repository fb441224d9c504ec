/*
 * The pause process: does nothing, and by that holds the namespaces an ordinary user's networks
 * live in while brokers come and go. It is found by its socket; whoever is connected there holds
 * it, too.
 */
#pragma once

/* Where it listens, below the runtime directory. SO_PEERCRED of a connection tells its pid. */
#define PAUSE_SOCKET "pause"
/* Inode number and cookie of the network namespace (namespaces.h), there too. */
#define NAMESPACE_RECORD "namespace"
/* Where its starter leaves a bound AF_UNIX stream socket, and the first connection, over which it
 * says with one byte that it listens. */
#define PAUSE_LISTEN_FD 3
#define PAUSE_FIRST_FD  4

/*
 * Runs in the namespaces until nobody is connected and there is no TAP of a VM any more; then it
 * removes what is left in the runtime directory (remains.h) and returns 0.
 * Negative errno when it cannot start. Gives up every capability first.
 */
int pause_run(const char *runtime_directory);
