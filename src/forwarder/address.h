/* Addresses of forwards as sockets have them. Pure. */
#pragma once

#include "forwarder/forwarder-protocol.h"

#include <stdbool.h>
#include <sys/socket.h>

/* Writes the whole of *ret_address and returns how much of it counts. */
socklen_t address_make(
	bool is_ipv6, const uint8_t bytes[16], uint16_t port, struct sockaddr_storage *ret_address);

/* Whether a socket's address is just this one. */
bool address_is(const struct sockaddr_storage *address, bool is_ipv6, const uint8_t bytes[16],
	uint16_t port);

/* One that connections can be made to, and that is another machine's: unicast, not unspecified, not
 * of the loopback, for IPv6 neither link-local nor an IPv4 address in disguise. */
bool address_is_target(bool is_ipv6, const uint8_t bytes[16]);

/* Whether nothing in a forward is out of its range (forwarder-protocol.h). */
bool forward_is_valid(const struct forwarder_forward *forward);

/* Of the same protocol, family, address and port to listen on. */
bool forward_has_same_listen(const struct forwarder_forward *a, const struct forwarder_forward *b);

bool forward_has_same_target(const struct forwarder_forward *a, const struct forwarder_forward *b);
