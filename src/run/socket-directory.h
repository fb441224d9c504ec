/*
 * A directory for one helper's socket, which only the helper's user and root can enter: whoever
 * connects there first is the VM. It is gone when its vmnet-client is, whoever ends that.
 */
#pragma once

#include <stddef.h>

/* A unix socket's path with its NUL (unix(7), sun_path). */
#define SOCKET_DIRECTORY_PATH_SIZE 108

/*
 * Chooses a name that nobody has yet, below $XDG_RUNTIME_DIR where that is the caller's own and
 * short, else below /tmp; and below /tmp when the helper will drop from root to the user who called
 * sudo. Makes nothing. directory has SOCKET_DIRECTORY_PATH_SIZE bytes. Negative errno of
 * getrandom(2).
 */
int socket_directory_choose(char *directory);

/*
 * Makes it, mode 0700, owned by the user as whom the helper will run. Then path
 * (SOCKET_DIRECTORY_PATH_SIZE bytes) is where its socket is to be. Negative errno: -EEXIST when
 * somebody was faster, and others of mkdir(2) and chown(2); then there is no directory.
 */
int socket_directory_make(const char *directory, char *path);

/* Removes directory and the files in it. Nothing happens when it is empty text or not there. What
 * can't be removed stays. */
void socket_directory_remove(const char *directory);
