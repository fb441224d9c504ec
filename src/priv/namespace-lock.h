/*
 * One broker a network namespace.
 */
#pragma once

/*
 * Takes the network namespace this process is in. Returns an fd to be kept open: the kernel lets go
 * of the namespace with it, whatever way the process ends. -EADDRINUSE: another broker has it;
 * other negative errno of socket(2) and bind(2).
 *
 * The lock is a TCP port bound and never listened on. Ports belong to the namespace, those below
 * 1024 take CAP_NET_BIND_SERVICE (capabilities(7)), so that no ordinary user can take it first, and
 * nothing of it shows to others: nft's JSON output, for one, is broken by a table with an owner
 * (nftables 1.0.6).
 */
int namespace_lock_take(void);
