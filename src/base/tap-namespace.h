/*
 * Where a TAP is: the TAPs of an ordinary user's broker are in a network namespace of that user's.
 */
#pragma once

/*
 * Opens the network namespace of the TAP behind tap (SIOCGSKNS, tun(4)), when it is another one
 * than this process is in. Whoever has it open keeps the namespace, and is where a broker that lost
 * it finds it again. *ret_fd is the caller's. -ENOENT: it is this process's own; -EPERM: it is
 * neither that nor this user's; other negative errno: it is no TAP.
 */
int tap_namespace_open(int tap, int *ret_fd);
