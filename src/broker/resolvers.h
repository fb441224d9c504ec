/*
 * Whom a network's DNS asks for names of the world: the host's name servers, in a file of the
 * network's own (RUNTIME/networks/NETWORK.resolvers), which dnsmasq reads again when it is
 * replaced.
 */
#pragma once

#include "broker/network.h"

/*
 * Writes the file of a network that serves DNS, when that says something new; a host without name
 * servers is an empty one. Negative errno.
 */
int resolvers_write(struct network *network);

/* The same for all networks that exist. Problems are logged. */
void resolvers_write_all(struct registry *registry);

/*
 * The lines of a resolv.conf(5) that name servers, each with its newline. choose() says which
 * server stands for the one at address: mostly that itself; NULL for none. To be freed; NULL when
 * memory is out. Pure.
 */
char *resolvers_make_text(const char *bytes, size_t size,
	const char *(*choose)(void *context, const char *address), void *context);
