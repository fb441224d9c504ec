/*
 * Where the broker of an ordinary user keeps its files: the XDG base directories, and what stands
 * for them where a session has none (freedesktop.org, basedir-spec).
 */
#pragma once

#include <stddef.h>

/* The socket of the system's broker. */
#define SYSTEM_BROKER_SOCKET "/run/vmnet-broker/socket"

/*
 * $XDG_RUNTIME_DIR/vmnet-broker, else /run/user/UID/vmnet-broker, where the directory above is this
 * user's; else /tmp/vmnet-broker-UID. The environment of a process that gained privileges is not
 * asked. It need not exist. -ENAMETOOLONG; -EPERM: the last one is somebody else's, or others may
 * write there, and path says which it is.
 */
int user_runtime_directory(char *path, size_t size);

/* $XDG_CONFIG_HOME/vmnet-broker, else ~/.config/vmnet-broker. -ENOENT: this user has no home. */
int user_config_directory(char *path, size_t size);

/* $XDG_STATE_HOME/vmnet-broker, else ~/.local/state/vmnet-broker. -ENOENT: this user has no home.
 */
int user_state_directory(char *path, size_t size);
