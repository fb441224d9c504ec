/* What there is, for those who may know of it. */
#pragma once

#include "broker/credentials.h"
#include "broker/interface.h"

#include <jansson.h>

/* What peers are told of it. */
void listing_describe_interface(
	const struct interface *interface, struct broker_interface *ret_described);

/*
 * ListInterfaces' answer: of the interfaces that uid may know of (its own; root: all) the first
 * ones whose names come behind after ("": from the first on), as many as one answer has. A new
 * reference, or NULL when memory is out.
 */
json_t *listing_make_interfaces(const struct registry *registry, uid_t uid, const char *after);

/*
 * ListNetworks' answer: of the networks that a user may use the first ones whose names come behind
 * after, as many as one answer has. A new reference, or NULL when memory is out.
 */
json_t *listing_make_networks(
	const struct registry *registry, const struct credentials *user, const char *after);
